"""One or two commands in plain words, answered by one JSON action a line."""

import random
from dataclasses import dataclass

import numerals
from house import EVERYWHERE, HIGHEST, LOWEST, Action, Device, House

PHRASES = {
    "on": ("turn on {it}", "turn {it} on", "switch on {it}", "switch {it} on", "power on {it}", "activate {it}", "start {it}", "put {it} on", "power up {it}"),
    "off": (
        "turn off {it}", "turn {it} off", "switch off {it}", "switch {it} off", "power off {it}", "shut off {it}", "deactivate {it}",
        "stop {it}", "shut down {it}", "kill {it}", "power down {it}",
    ),
    "open": ("open {it}", "open {it}", "open up {it}"),
    "close": ("close {it}", "close {it}", "shut {it}"),
    "lock": ("lock {it}", "lock {it}", "lock up {it}", "bolt {it}"),
    "unlock": ("unlock {it}", "unlock {it}", "unbolt {it}"),
    "set": (
        "set {it} to {n}", "set {it} to {n}", "set {it} to {n}", "set {it} at {n}", "put {it} at {n}", "put {it} to {n}", "put {it} on {n}",
        "change {it} to {n}", "adjust {it} to {n}", "turn {it} to {n}", "bring {it} to {n}", "move {it} to {n}", "get {it} to {n}", "make {it} {n}",
    ),
}  # fmt: skip

TARGETS = ("the {zone} {name}", "the {zone} {name}", "the {zone} {name}", "the {name} in the {zone}", "the {name} in the {zone}", "{zone} {name}", "our {zone} {name}", "my {zone} {name}", "the {name} of the {zone}")
EVERY_TARGET = ("all the {name}", "all {name}", "all of the {name}", "every {name}", "the {name} everywhere", "the {name} in all rooms", "each {name}", "the {name} in every room", "all the {name} in the house")
TERSE = ("{zone} {name} {word}", "{zone} {name} {word}", "{zone} {name}: {word}", "{name} {zone} {word}", "{name} in the {zone} {word}", "{zone}, {name}, {word}")
BY_PLACE = ("in the {zone}, {c}", "in the {zone} {c}", "{zone}: {c}", "i am in the {zone}, {c}")

REQUESTS = (
    "{c}", "{c}", "{c}", "{c}", "{c}", "{c}", "please {c}", "please {c}", "please {c}", "{c} please", "{c}, please", "kindly {c}",
    "i want you to {c}", "i'd like you to {c}", "i would like to {c}", "hey, {c}", "hi, {c}", "hello, please {c}", "ok, {c}", "okay {c}", "now {c}",
    "{c} now", "{c} right away", "{c} for me", "just {c}", "go ahead and {c}", "{c}, thanks", "{c}, thank you", "um, {c}", "quickly {c}",
    "it is time to {c}", "we need to {c}", "i need you to {c}", "{c} when you can", "let's {c}", "so, {c}", "well, please {c}", "you should {c}",
    "oh, and {c}", "hey gateway, {c}", "be so kind and {c}", "i want to {c}", "do me a favour and {c}", "{c} immediately", "{c}, will you",
    "please go and {c}", "make sure to {c}", "you can {c} now", "next, {c}", "time to {c}",
)  # fmt: skip
QUESTIONS = (
    "can you {c}", "could you {c}", "could you please {c}", "would you {c}", "can you please {c}", "will you {c} for me",
    "may i ask you to {c}", "would you mind to {c}", "can we {c}", "could you quickly {c}", "would you be so kind to {c}",
)  # fmt: skip
REASONS = (
    "it is getting dark", "it's cold in here", "it is too warm", "i am leaving", "we are leaving now", "i'm going to bed", "guests are coming",
    "it is raining", "the shift is over", "i can't see anything", "it smells in here", "the meeting starts", "it's too loud", "i just came home",
    "we have visitors", "it is bright outside", "everybody has left", "good morning", "the sun is out", "i'm freezing", "the air is bad",
    "work is done", "the children are asleep", "i forgot it again", "it is late", "sorry to bother you", "there is a storm coming", "the plants are dry",
)  # fmt: skip
REASONED = ("{r}, {c}", "{r}, please {c}", "{r}, so {c}", "{r}. {c}", "{c}, {r}", "{c} because {r}", "{r}, can you {c}?", "{r}. could you {c}?")
TERSE_REQUESTS = ("{c}", "{c}", "{c}", "{c} please", "please, {c}", "hey, {c}")

JOINTS = (
    "{a} and {b}", "{a} and {b}", "{a} and {b}", "{a}, {b}", "{a}, then {b}", "{a} and then {b}", "{a} and also {b}", "{a}; {b}", "{a}. {b}",
    "first {a}, then {b}", "{a}, and {b}", "{a} plus {b}", "{a}, also {b}", "{a} and please {b}", "{a}, after that {b}", "{a}. then {b}", "{a}. also, {b}",
)  # fmt: skip
HALF, FULL = ("half", "halfway"), ("full", "maximum", "the maximum", "max")


@dataclass(frozen=True)
class Said:
    """A prompt with the actions that it asks for."""

    prompt: str
    actions: tuple[Action, ...]

    def reply(self) -> str:
        return "\n".join(action.reply() for action in self.actions)

    def keys(self) -> list[str]:
        return [action.key() for action in self.actions]


def single(house: House, rng: random.Random) -> Said:
    action = pick(house, rng)
    return Said(write_prompt(house, action, rng), (action,))


def double(house: House, rng: random.Random) -> Said:
    """Two actions: two clauses, or one clause with two zones, two devices or two values."""
    form = rng.random()
    first = pick(house, rng, everywhere=0.02)
    if form < 0.15 and first.zone != EVERYWHERE:
        zone = rng.choice([zone for zone in house.zones if zone != first.zone])
        return two_zones(house, first, Action(first.device, zone, first.verb, first.value), rng)
    others = partners(house, first)
    if form < 0.3 and first.zone != EVERYWHERE and others:
        return two_devices(house, first, Action(rng.choice(others), first.zone, first.verb, first.value), rng)
    second = pick(house, rng, everywhere=0.02)
    if form < 0.4 and first.verb == "set":
        second = pick(house, rng, verb="set", everywhere=0.0)
        if first.zone != EVERYWHERE and first != second:
            return two_values(house, first, second, rng)
    while second == first:
        second = pick(house, rng)
    text = rng.choice(JOINTS).format(a=clause(house, first, rng), b=clause(house, second, rng))
    return Said(request(text, rng), (first, second))


def two_zones(house: House, first: Action, second: Action, rng: random.Random) -> Said:
    name = name_of(house, first, rng)
    a, b = zone_name(house, first, rng), zone_name(house, second, rng)
    it = rng.choice(("the {name} in the {a} and the {b}", "the {name} in the {a} and in the {b}", "the {a} and {b} {name}", "the {a} and the {b} {name}", "{a} and {b} {name}"))
    text = phrase(house, first, it.format(name=name, a=a, b=b), rng)
    return Said(request(text, rng), (first, second))


def two_devices(house: House, first: Action, second: Action, rng: random.Random) -> Said:
    zone = zone_name(house, first, rng)
    a, b = name_of(house, first, rng), name_of(house, second, rng)
    it = rng.choice(("the {a} and the {b} in the {zone}", "the {a} and {b} in the {zone}", "the {zone} {a} and {b}", "the {zone} {a} and the {b}", "{zone} {a} and {b}"))
    text = phrase(house, first, it.format(zone=zone, a=a, b=b), rng, common=True)
    return Said(request(text, rng), (first, second))


def two_values(house: House, first: Action, second: Action, rng: random.Random) -> Said:
    second_part = rng.choice(("{it} to {n}", "{it} at {n}")).format(it=target(house, second, rng), n=amount(house, second, rng))
    text = f"{clause(house, first, rng)}{rng.choice((' and ', ', ', ' and '))}{second_part}"
    return Said(request(text, rng), (first, second))


def partners(house: House, action: Action) -> list[str]:
    """Other devices that can do the same, and take a value of the same unit."""
    mine = house.devices[action.device]
    fits = lambda device: action.verb in device.actions and (action.verb != "set" or device.degrees == mine.degrees)
    return [name for name, device in house.devices.items() if name != action.device and fits(device)]


def pick(house: House, rng: random.Random, verb: str | None = None, everywhere: float = 0.05) -> Action:
    """An action that its device can do."""
    able = [name for name, device in house.devices.items() if verb is None or verb in device.actions]
    name = rng.choice(able)
    device = house.devices[name]
    zone = EVERYWHERE if rng.random() < everywhere else rng.choice(list(house.zones))
    if verb is None:
        others = [action for action in device.actions if action != "set"]
        verb = "set" if device.is_settable and (not others or rng.random() < 0.6) else rng.choice(others)
    return Action(name, zone, verb, pick_value(device, rng) if verb == "set" else None)


def pick_value(device: Device, rng: random.Random) -> float:
    if device.degrees and rng.random() < 0.6:
        degrees = rng.randint(5, 35)
        return degrees + 0.5 if rng.random() < 0.3 else degrees
    return rng.randint(LOWEST, HIGHEST) if rng.random() < 0.7 else rng.randrange(LOWEST, HIGHEST + 1, 5)


def write_prompt(house: House, action: Action, rng: random.Random) -> str:
    form = rng.random()
    if action.zone != EVERYWHERE and action.device != "lock" and form < 0.08:
        word = amount(house, action, rng) if action.verb == "set" else action.verb
        text = rng.choice(TERSE).format(zone=zone_name(house, action, rng), name=name_of(house, action, rng), word=word)
        return end(rng.choice(TERSE_REQUESTS).format(c=text), ("", "", "."), rng)
    if action.zone != EVERYWHERE and form < 0.16:
        inner = phrase(house, action, f"the {name_of(house, action, rng)}", rng)
        text = rng.choice(BY_PLACE).format(zone=zone_name(house, action, rng), c=inner)
        return end(rng.choice(("{c}", "{c}", "please, {c}", "{c} please")).format(c=text), ("", ".", "!"), rng)
    return request(clause(house, action, rng), rng)


def request(text: str, rng: random.Random) -> str:
    """A clause as people ask for it."""
    form = rng.random()
    if form < 0.18:
        return end(rng.choice(QUESTIONS).format(c=text), ("?", "?", ""), rng)
    if form < 0.28:
        return end(rng.choice(REASONED).format(c=text, r=rng.choice(REASONS)), ("", ""), rng)
    return end(rng.choice(REQUESTS).format(c=text), ("", "", "", ".", ".", "!"), rng)


def clause(house: House, action: Action, rng: random.Random) -> str:
    return phrase(house, action, target(house, action, rng), rng)


def phrase(house: House, action: Action, it: str, rng: random.Random, common: bool = False) -> str:
    """The action on `it`; `common`: only in words that fit every device."""
    own = () if common else house.devices[action.device].phrases.get(action.verb, ())
    return rng.choice(PHRASES[action.verb] + own).format(it=it, n=amount(house, action, rng))


def target(house: House, action: Action, rng: random.Random) -> str:
    if action.zone == EVERYWHERE:
        return rng.choice(EVERY_TARGET).format(name=name_of(house, action, rng))
    if action.device == "lock" and rng.random() < 0.15:
        return f"the {zone_name(house, action, rng)}"
    return rng.choice(TARGETS).format(zone=zone_name(house, action, rng), name=name_of(house, action, rng))


def name_of(house: House, action: Action, rng: random.Random) -> str:
    return rng.choice(house.devices[action.device].names)


def zone_name(house: House, action: Action, rng: random.Random) -> str:
    return rng.choice(house.zones[action.zone])


def amount(house: House, action: Action, rng: random.Random) -> str:
    """The value in digits or words, with or without its unit."""
    if action.value is None:
        return ""
    degrees = house.devices[action.device].degrees
    if action.value == 50 and not degrees and rng.random() < 0.3:
        return rng.choice(HALF)
    if action.value == HIGHEST and not degrees and rng.random() < 0.5:
        return rng.choice(FULL)
    in_words = action.value == int(action.value) and rng.random() < 0.15
    units = (" degrees", " degrees", " celsius") if degrees else (" percent",)
    if not in_words:
        units += (" C", "C", " °C", "°") if degrees else ("%", "%", " %")
    number = numerals.words(int(action.value)) if in_words else f"{action.value}"
    return f"{number}{rng.choice(units) if rng.random() < 0.35 else ''}"


def end(text: str, marks: tuple[str, ...], rng: random.Random) -> str:
    return text if text.endswith("?") else text + rng.choice(marks)
