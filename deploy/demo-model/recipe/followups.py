"""Turns that mean something only after the turn before: another room, device, value or verb; an answer to what was asked back."""

import random
from dataclasses import replace

import commands
import refusals
import telemetry
from house import EVERYWHERE, Action, House

OTHER_ZONE = (
    "and the {zone}", "and the {zone}", "and the {zone} too", "and the {zone} too", "the {zone} too", "same in the {zone}", "do the same in the {zone}", "also in the {zone}",
    "and in the {zone}", "what about the {zone}?", "the {zone} as well", "now the {zone}", "{zone} too", "and now the {zone}", "then the {zone}",
    "likewise in the {zone}", "repeat that for the {zone}", "please also the {zone}", "the one in the {zone} too", "and the one in the {zone}",
    "no, the {zone}", "i meant the {zone}", "sorry, in the {zone}", "not there, in the {zone}", "and {zone}", "and the same for the {zone}",
    "the {zone} also", "i meant the one in the {zone}", "in the {zone} too, please", "the {zone} needs it too", "also the {zone}, please",
)  # fmt: skip
OTHER_DEVICE = (
    "and the {name}", "and the {name}", "and the {name} too", "the {name} too", "and the {name} as well", "same for the {name}", "also the {name}", "now the {name}",
    "what about the {name}?", "do that with the {name} too", "and the {name} there", "i meant the {name}", "no, the {name}", "then the {name}", "the {name} as well",
    "and the {name}, please", "likewise the {name}", "not that, the {name}", "and also the {name} in there",
)  # fmt: skip
OTHER_VALUE = (
    "make it {n}", "make it {n}", "make that {n}", "{n} instead", "rather {n}", "no, {n}", "set it to {n}", "set it to {n}", "change it to {n}", "now {n}", "better {n}",
    "{n} is enough", "i meant {n}", "go to {n}", "actually {n}", "put it to {n}", "{n} please", "turn it to {n}", "turn it down to {n}", "turn it up to {n}",
    "now to {n}", "let's say {n}", "and now {n}", "bring it to {n}", "no, i said {n}", "then {n}", "sorry, {n}",
)  # fmt: skip
OTHER_VERB = ("{c}", "{c} again", "{c} now", "and {c} again", "now {c}", "please {c}", "{c} again please", "ok, {c}", "no, {c}", "can you {c} again?", "{c} after all", "{c}, please", "i changed my mind, {c}")
WORDS = {"on": ("back on", "on again"), "off": ("back off", "off again"), "open": ("open again",), "close": ("closed again",), "lock": ("locked again",), "unlock": ("unlocked again",)}
AND_WORD = ("and {w}", "{w}", "{w} please", "now {w}")

ANSWERS = {
    "zone": ("the {zone}", "the {zone}", "in the {zone}", "{zone}", "{zone} please", "the one in the {zone}", "in the {zone}, of course", "i mean the {zone}", "it is in the {zone}", "the {zone}, please", "in the {zone} please", "the {zone} one"),
    "device": ("the {name}", "the {name}", "{name}", "the {name}, please", "i mean the {name}", "{name} please", "the {name} of course", "it's the {name}", "i meant the {name}"),
    "value": ("{n}", "{n}", "to {n}", "{n} please", "make it {n}", "let's say {n}", "set it to {n}", "{n} would be good", "{n}, please", "at {n}"),
    "both": ("the {zone} {name}", "the {name} in the {zone}", "{zone} {name}", "i mean the {zone} {name}", "the {zone} {name}, please", "{name} in the {zone}"),
}  # fmt: skip
NEVER_MIND = ("never mind", "forget it", "cancel", "nothing", "leave it", "cancel that", "forget about it", "it does not matter", "none", "no, thanks", "stop")


def after_action(house: House, action: Action, rng: random.Random) -> tuple[str, Action]:
    """A turn after this action was asked for, and the action that it asks for."""
    device = house.devices[action.device]
    ways = ["verb"] * bool(other_verbs(house, action)) + ["value", "value"] * device.is_settable
    others = commands.partners(house, action)
    if action.zone != EVERYWHERE:
        ways += ["zone"] * 3 + ["device", "device"] * bool(others)
    match rng.choice(ways or ["zone"]):
        case "zone":
            zone = rng.choice([zone for zone in house.zones if zone != action.zone])
            then = replace(action, zone=zone)
            return finish(rng.choice(OTHER_ZONE).format(zone=commands.zone_name(house, then, rng)), rng), then
        case "device":
            then = replace(action, device=rng.choice(others))
            return finish(rng.choice(OTHER_DEVICE).format(name=plain_name(house, then, rng)), rng), then
        case "value":
            then = replace(action, verb="set", value=commands.pick_value(device, rng))
            return finish(rng.choice(OTHER_VALUE).format(n=commands.amount(house, then, rng)), rng), then
    then = replace(action, verb=rng.choice(other_verbs(house, action)), value=None)
    if rng.random() < 0.2:
        return finish(rng.choice(AND_WORD).format(w=rng.choice(WORDS[then.verb])), rng), then
    it = rng.choice(("it", "it", "it", "them", "that"))
    return finish(rng.choice(OTHER_VERB).format(c=commands.phrase(house, then, it, rng, common=True)), rng), then


def other_verbs(house: House, action: Action) -> list[str]:
    return [verb for verb in house.devices[action.device].actions if verb not in ("set", action.verb)]


def plain_name(house: House, action: Action, rng: random.Random) -> str:
    """Not one that is a quantity, too: after readings, "and the temperature?" asks for that."""
    quantities = {name for quantity in telemetry.QUANTITIES for name in quantity.names}
    names = [name for name in house.devices[action.device].names if name not in quantities]
    return rng.choice(names or house.devices[action.device].names)


def after_question(house: House, pending: refusals.Pending, rng: random.Random) -> tuple[str, Action | None]:
    """An answer to what was asked back, and the action that is complete now; `None`: it is given up."""
    if rng.random() < 0.1:
        return finish(rng.choice(NEVER_MIND), rng), None
    action = pending.action
    answer = rng.choice(ANSWERS[pending.lacks]).format(
        zone=commands.zone_name(house, action, rng), name=commands.name_of(house, action, rng), n=commands.amount(house, action, rng)
    )
    return finish(answer, rng), action


def finish(text: str, rng: random.Random) -> str:
    return commands.end(text, ("", "", ".", "!"), rng)
