"""What is answered without an action: other people's business, what devices cannot do, and what is missing."""

import random
from dataclasses import dataclass, replace
from pathlib import Path

import commands
import numerals
from house import ACTIONS, HIGHEST, LOWEST, Action, House

NOT_MY_BUSINESS = "Sorry, I can only switch devices, read measurements and explain terms of the trade."
NO_SUCH_DEVICE = "Sorry, I know no such device."
NO_SUCH_ROOM = "Sorry, I know no such room."
NOT_LATER = "Sorry, I can only act at once, without timers and conditions."
NO_STATES = "Sorry, I cannot see what state a device is in."
LEFT_ALONE = "All right, I leave it as it is."
OUT_OF_RANGE = f"Sorry, a value has to be from {LOWEST} to {HIGHEST}."

TOPICS = tuple((Path(__file__).parent / "topics.txt").read_text().splitlines())
"""What others may ask about, one a line."""
ABOUT_TOPICS = (
    "tell me about {t}", "what do you think about {t}?", "what do you know about {t}?", "write a poem about {t}", "tell me a joke about {t}",
    "do you like {t}?", "write an essay on {t}", "i love {t}", "i hate {t}", "where can i buy {t}?", "how much does {t} cost?", "who invented {t}?",
    "why is {t} so popular?", "give me three facts about {t}", "sing a song about {t}", "i want {t}", "order {t} for me", "can you get me {t}?",
    "book {t} for tomorrow", "find {t} near me", "show me pictures of {t}", "translate {t} into french", "how do you spell {t}?", "what is the history of {t}?",
    "how old is {t}?", "is {t} dangerous?", "explain {t} to a child", "what is the best {t}?", "recommend {t}", "let's talk about {t}", "play {t}",
    "search the web for {t}", "what is the price of {t}?", "who is the king of {t}?", "how many people like {t}?", "email my boss about {t}",
    "remind me of {t}", "buy {t}", "call {t}", "read me the news about {t}", "what rhymes with {t}?", "did you hear about {t}?", "i dreamed of {t}",
    "how do i make {t}?", "where is {t}?", "when is {t}?", "who is {t}?", "what is {t}?", "what happened to {t}?", "please write a story about {t}",
    "compare {t} and {u}", "which is better, {t} or {u}?", "should i choose {t} or {u}?", "my friend told me about {t} and {u}", "{t}", "{t}, {u} and so on",
    "i bought {t} yesterday", "can you sell {t}?", "my brother has {t}", "do you have {t}?", "we talked about {t} in the {zone}", "there is {t} in the {zone}",
    "i lost {t} in the {zone}", "who put {t} in the {zone}?", "draw {t}", "summarise the book about {t}", "help me with {t}", "is {t} true?",
)  # fmt: skip
CHATTER = (
    "the {zone} is beautiful", "i like the {zone} {name}", "the {zone} {name} is broken", "who bought the {zone} {name}?", "how old is the {zone} {name}?",
    "how much did the {name} in the {zone} cost?", "what colour is the {zone} {name}?", "i was in the {zone}", "we painted the {zone}",
    "where is the {zone}?", "where can i buy a {name}?", "my {name} is better than yours", "why is the {zone} {name} so ugly?", "who is in the {zone}?",
    "write a poem about the {zone} {name}", "how many people are in the {zone}?", "clean the {zone}", "tell me a story about a {name}", "paint the {zone} {name}",
    "sell the {zone} {name}", "repair the {name} in the {zone}", "i will meet you in the {zone}", "order a new {name} for the {zone}", "who needs a {name}?",
    "is the {zone} big?", "the {name} was expensive", "count the chairs in the {zone}", "i fell asleep in the {zone}", "what a nice {name}",
)  # fmt: skip
SUMS = ("what is {a} plus {b}?", "what is {a} times {b}?", "how much is {a} minus {b}?", "{a} + {b}", "calculate {a} * {b}", "divide {a} by {b}", "what is the square root of {a}?", "is {a} a prime number?", "count to {a}")

GADGETS = (
    "dishwasher", "oven", "fridge", "tv", "television", "radio", "washing machine", "dryer", "robot", "car", "camera", "projector", "coffee machine", "kettle",
    "toaster", "printer", "computer", "screen", "elevator", "lift", "fountain", "microwave", "vacuum cleaner", "fireplace", "humidifier", "mixer", "drill",
    "crane", "forklift", "laser", "scanner", "microphone", "piano", "shower", "toilet", "bathtub", "hair dryer", "iron", "phone", "charger", "drone", "mower",
    "barbecue", "sauna", "jacuzzi", "aquarium", "telescope", "engine", "rocket", "escalator", "conveyor belt", "lathe", "furnace", "freezer", "blender", "router",
    "server", "monitor", "tablet", "doorbell", "gate", "drawbridge", "hatch", "air conditioner", "dehumidifier", "boiler", "battery", "mill", "oven door",
)  # fmt: skip
PLACES = (
    "castle", "moon", "submarine", "cockpit", "church", "library", "gym", "school", "stadium", "cinema", "museum", "tower", "barn", "stable", "tunnel", "canteen",
    "cafeteria", "hospital", "airport", "bridge", "harbour", "forest", "bunker", "studio", "laboratory", "guest room", "swimming pool", "playroom", "balcony",
    "corridor", "staircase", "car park", "cave", "pantry", "dungeon", "kindergarten", "shop", "hotel", "bakery", "treehouse", "wine cellar", "throne room", "shed",
    "elevator shaft", "paint shop", "observatory", "theatre", "bank", "prison", "train", "bus", "classroom", "reception", "laundry", "closet", "wardrobe",
)  # fmt: skip
NEGATIONS = (
    "do not {c}", "don't {c}", "please do not {c}", "please don't {c}", "never {c}", "you must not {c}", "you should not {c}", "no need to {c}",
    "i don't want you to {c}", "stop, don't {c}", "i would not {c}", "whatever you do, don't {c}", "do not {c} yet", "don't you dare to {c}", "it's not necessary to {c}",
    "better not {c}", "i never told you to {c}", "wait, do not {c}", "dont {c}", "forget about it, don't {c}",
)  # fmt: skip
LATER = (
    "{c} in {n} minutes", "{c} at {n} o'clock", "{c} tomorrow", "{c} tomorrow morning", "{c} at midnight", "{c} when it rains", "if it gets dark, {c}",
    "{c} every day at {n}", "{c} for {n} minutes", "{c} after {n} seconds", "in {n} minutes, {c}", "at {n} pm {c}", "when i leave, {c}", "{c} if nobody is there",
    "{c} until {n}", "{c} on monday", "every evening {c}", "{c} in an hour", "{c} as soon as it is warm", "remind me to {c}", "tonight, {c}", "{c} next week",
    "if the temperature is above {n}, {c}", "{c} when the sun sets", "{c} at noon", "{c} once i am home", "schedule: {c} at {n}:30", "{c} in half an hour", "{c} later",
    "unless it is warm, {c}", "{c} while i am away", "{c} at {n}:{m}",
)  # fmt: skip
STATES = (
    "is {it} on?", "is {it} off?", "is {it} open?", "is {it} closed?", "is {it} locked?", "are {it} on?", "are {it} closed?", "did i leave {it} on?", "what is the state of {it}?",
    "did you turn off {it}?", "have you locked {it}?", "is {it} still running?", "was {it} on last night?", "who turned on {it}?", "who opened {it}?", "did somebody open {it}?",
    "when was {it} turned on?", "how is {it} set?", "check whether {it} is off", "tell me if {it} is open", "why is {it} on?", "why is {it} off?", "does {it} work?",
    "what is {it} set to?", "is {it} running?", "how bright is {it}?", "show me {it}", "status of {it}", "is {it} on or off?",
)  # fmt: skip
ANYTHING = ("turn on", "turn off", "switch on", "switch off", "open", "close", "lock", "start", "stop", "activate")


@dataclass(frozen=True)
class Pending:
    """What was asked back: an action whose zone, device or value is still to come."""

    action: Action
    lacks: str


def topic(house: House, rng: random.Random) -> tuple[str, str, list[str]]:
    form = rng.random()
    if form < 0.12:
        a, b = rng.randint(2, 99), rng.randint(2, 99)
        prompt = rng.choice(SUMS).format(a=a, b=b)
        return prompt, NOT_MY_BUSINESS, [f"sum {prompt}"]
    zone = rng.choice(list(house.zones))
    if form < 0.25:
        device = rng.choice(list(house.devices))
        prompt = rng.choice(CHATTER).format(zone=zone, name=rng.choice(house.devices[device].names))
        return prompt, NOT_MY_BUSINESS, [f"chatter {prompt}"]
    first, second = rng.sample(TOPICS, 2)
    text = rng.choice(ABOUT_TOPICS)
    keys = [f"topic {first}"] + ([f"topic {second}"] if "{u}" in text else [])
    return text.format(t=first, u=second, zone=zone), NOT_MY_BUSINESS, keys


def unknown(house: House, rng: random.Random) -> tuple[str, str, list[str]]:
    """A device or a room that is not there."""
    zone = rng.choice(list(house.zones))
    if rng.random() < 0.5:
        gadget = rng.choice(absent(GADGETS, {name: device.names for name, device in house.devices.items()}))
        it = rng.choice((f"the {gadget}", f"the {gadget} in the {zone}", f"the {zone} {gadget}", f"my {gadget}", f"{zone} {gadget}"))
        text = f"{rng.choice(ANYTHING)} {it}" if rng.random() < 0.8 else f"set {it} to {rng.randint(LOWEST, HIGHEST)}"
        return commands.request(text, rng), NO_SUCH_DEVICE, [f"gadget {gadget}"]
    place = rng.choice(absent(PLACES, house.zones))
    action = commands.pick(house, rng, everywhere=0.0)
    text = commands.clause(replace_zone(house, place), replace(action, zone=place), rng)
    return commands.request(text, rng), NO_SUCH_ROOM, [f"place {place}"]


def absent(all_names: tuple[str, ...], there: dict[str, tuple[str, ...]]) -> list[str]:
    """Those that a house of one's own has not; all where it has every one of them."""
    known = {name.lower() for key, names in there.items() for name in (key, *names)}
    return [name for name in all_names if name not in known and f"{name}s" not in known] or list(all_names)


def replace_zone(house: House, place: str) -> House:
    return House({place: (place,)}, house.devices)


def unable(house: House, rng: random.Random) -> tuple[str, str, list[str]]:
    """What its device cannot do, a value that is too large, a wish for later or not, a question about a state."""
    form = rng.random()
    if form < 0.3 and impossible(house):
        return cannot(house, rng)
    action = commands.pick(house, rng, everywhere=0.03)
    text = commands.clause(house, action, rng)
    keys = [action.key()]
    if form < 0.42 and house.is_settable:
        action = commands.pick(house, rng, verb="set", everywhere=0.0)
        value = rng.choice((rng.randint(HIGHEST + 1, 199), rng.randrange(HIGHEST + 10, 1000, 10)))
        text = commands.clause(house, replace(action, value=value), rng)
        return commands.request(text, rng), OUT_OF_RANGE, [f"range {action.device} {action.zone}"]
    if form < 0.6:
        negated = rng.choice(NEGATIONS).format(c=text)
        return commands.end(negated, ("", ".", "!"), rng), LEFT_ALONE, keys
    if form < 0.8:
        n = rng.choice((str(rng.randint(1, 59)), numerals.words(rng.randint(1, 20))))
        later = rng.choice(LATER).format(c=text, n=n, m=f"{rng.randint(0, 59):02d}")
        return commands.end(later, ("", ".", "!"), rng), NOT_LATER, keys
    it = commands.target(house, action, rng)
    return rng.choice(STATES).format(it=it), NO_STATES, [f"state {action.device} {action.zone}"]


def cannot(house: House, rng: random.Random) -> tuple[str, str, list[str]]:
    """A device with a verb of others. Not where another device of the same name has that verb: a door that is locked is a lock."""
    zone = rng.choice(list(house.zones))
    name, verb = rng.choice(impossible(house))
    value = rng.randint(LOWEST, HIGHEST) if verb == "set" else None
    action = Action(name, zone, verb, value)
    it = commands.target(house, action, rng)
    text = commands.phrase(house, action, it, rng, common=True)
    return commands.request(text, rng), f"The {zone} {name} cannot do that.", [f"cannot {name} {zone} {verb}"]


def impossible(house: House) -> list[tuple[str, str]]:
    """Devices, each with a verb that nothing of any of its names has."""
    of_name: dict[str, set[str]] = {}
    for device in house.devices.values():
        for name in device.names:
            of_name.setdefault(name, set()).update(device.actions)
    return [
        (key, verb)
        for key, device in house.devices.items()
        for verb in ACTIONS
        if not any(verb in of_name[name] for name in device.names)
    ]


def missing(house: House, rng: random.Random) -> tuple[str, str, list[str], Pending | None]:
    """A command that lacks its zone, its device, its value, or both zone and device; and what is asked back."""
    action = commands.pick(house, rng, everywhere=0.0)
    form = rng.random()
    keys = [f"missing {action.device} {action.verb} {action.value}" if form < 0.4 else f"missing {action.device} {action.zone} {action.verb}"]
    if form < 0.4:
        it = rng.choice(("the {name}", "the {name}", "the {name}", "{name}", "my {name}")).format(name=commands.name_of(house, action, rng))
        text = commands.phrase(house, action, it, rng)
        return commands.request(text, rng), f"In which room is the {action.device}?", keys, Pending(action, "zone")
    zone = commands.zone_name(house, action, rng)
    if form < 0.65:
        it = rng.choice(("it in the {zone}", "something in the {zone}", "the one in the {zone}", "that in the {zone}", "the thing in the {zone}")).format(zone=zone)
        text = commands.phrase(house, action, it, rng, common=True)
        return commands.request(text, rng), f"Which device in the {action.zone}?", keys, Pending(action, "device")
    if form < 0.85 and house.is_settable:
        action = commands.pick(house, rng, verb="set", everywhere=0.0)
        it = commands.target(house, action, rng)
        text = rng.choice(("set {it}", "change {it}", "adjust {it}", "dim {it}", "set {it} to", "change the value of {it}", "regulate {it}", "set the level of {it}")).format(it=it)
        keys = [f"missing {action.device} {action.zone} value"]
        return commands.request(text, rng), f"To what value, from {LOWEST} to {HIGHEST}?", keys, Pending(action, "value")
    it = rng.choice(("it", "that", "this", "them", "the thing", "everything", "something"))
    text = commands.phrase(house, action, it, rng, common=True)
    return commands.request(text, rng), "Which device, and in which room?", [f"missing {it} {action.verb} {action.value}"], Pending(action, "both")
