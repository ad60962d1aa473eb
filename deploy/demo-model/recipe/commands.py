"""Task 1: one command in plain words, answered by one JSON device action."""

import json
import random
from dataclasses import dataclass

import surface

ZONES = (
    "hall", "bedroom", "kitchen", "office", "garage", "garden", "bathroom", "basement",
    "attic", "workshop", "greenhouse", "lobby", "warehouse", "living room", "boiler room", "meeting room",
)  # fmt: skip

ON_OFF, OPEN_CLOSE, LOCKING = ("on", "off"), ("open", "close"), ("lock", "unlock")


@dataclass(frozen=True)
class Device:
    names: tuple[str, ...]
    actions: tuple[str, ...]
    settable: bool = False
    is_temperature: bool = False


DEVICES = {
    "light": Device(("light", "lights", "lamp", "lamps"), ON_OFF, settable=True),
    "fan": Device(("fan", "fan", "fans"), ON_OFF, settable=True),
    "heater": Device(("heater", "heating", "radiator"), ON_OFF, settable=True, is_temperature=True),
    "pump": Device(("pump", "pumps"), ON_OFF, settable=True),
    "speaker": Device(("speaker", "speakers"), ON_OFF, settable=True),
    "blind": Device(("blind", "blinds", "shutters"), OPEN_CLOSE, settable=True),
    "valve": Device(("valve", "valves"), OPEN_CLOSE, settable=True),
    "vent": Device(("vent", "vents", "air vent"), OPEN_CLOSE, settable=True),
    "thermostat": Device(("thermostat", "temperature"), (), settable=True, is_temperature=True),
    "door": Device(("door", "doors"), OPEN_CLOSE),
    "window": Device(("window", "windows"), OPEN_CLOSE),
    "lock": Device(("lock", "door lock", "door"), LOCKING),
    "alarm": Device(("alarm", "siren"), ON_OFF),
    "plug": Device(("plug", "socket", "outlet"), ON_OFF),
    "sprinkler": Device(("sprinkler", "sprinklers", "irrigation"), ON_OFF),
}

PHRASES = {
    "on": ("turn on {it}", "turn {it} on", "switch on {it}", "switch {it} on", "power on {it}", "activate {it}", "start {it}"),
    "off": ("turn off {it}", "turn {it} off", "switch off {it}", "switch {it} off", "power off {it}", "shut off {it}", "deactivate {it}", "stop {it}"),
    "open": ("open {it}", "open up {it}"),
    "close": ("close {it}", "shut {it}"),
    "lock": ("lock {it}", "lock up {it}"),
    "unlock": ("unlock {it}",),
    "set": (
        "set {it} to {n}", "set {it} to {n}", "set {it} at {n}", "put {it} at {n}", "put {it} to {n}", "change {it} to {n}",
        "adjust {it} to {n}", "turn {it} to {n}", "bring {it} to {n}", "move {it} to {n}", "get {it} to {n}",
    ),
}  # fmt: skip

PHRASES_OF_DEVICE = {
    ("light", "set"): ("dim {it} to {n}", "brighten {it} to {n}", "turn {it} down to {n}", "turn {it} up to {n}"),
    ("fan", "set"): ("run {it} at {n}", "slow {it} to {n}", "turn {it} down to {n}", "turn {it} up to {n}"),
    ("heater", "set"): ("raise {it} to {n}", "lower {it} to {n}", "turn {it} down to {n}", "turn {it} up to {n}"),
    ("thermostat", "set"): ("raise {it} to {n}", "lower {it} to {n}", "turn {it} down to {n}", "turn {it} up to {n}"),
    ("speaker", "set"): ("turn {it} down to {n}", "turn {it} up to {n}"),
    ("pump", "set"): ("run {it} at {n}",),
    ("blind", "set"): ("raise {it} to {n}", "lower {it} to {n}", "open {it} to {n}"),
    ("valve", "set"): ("open {it} to {n}", "close {it} to {n}"),
    ("vent", "set"): ("open {it} to {n}", "close {it} to {n}"),
    ("alarm", "on"): ("arm {it}", "arm {it}"),
    ("alarm", "off"): ("disarm {it}", "disarm {it}"),
    ("pump", "on"): ("run {it}",),
    ("sprinkler", "on"): ("run {it}",),
}

TARGETS = ("the {zone} {name}", "the {zone} {name}", "the {name} in the {zone}", "{zone} {name}", "our {zone} {name}")
TERSE = ("{zone} {name} {word}", "{zone} {name}: {word}", "{name} {zone} {word}", "{name} in the {zone} {word}")

REQUESTS = (
    "{c}", "{c}", "{c}", "{c}", "{c}", "please {c}", "please {c}", "please {c}", "{c} please", "{c}, please", "kindly {c}",
    "i want you to {c}", "i'd like you to {c}", "hey, {c}", "hi, {c}", "hello, please {c}", "ok, {c}", "now {c}", "{c} now",
    "{c} right away", "{c} for me", "just {c}", "go ahead and {c}", "{c}, thanks", "um, {c}", "quickly {c}", "it is time to {c}",
    "we need to {c}", "{c} when you can", "let's {c}", "so, {c}", "well, please {c}", "you should {c}", "oh, and {c}",
)  # fmt: skip
QUESTIONS = ("can you {c}", "could you {c}", "could you please {c}", "would you {c}", "can you please {c}", "will you {c} for me", "may i ask you to {c}")
TERSE_REQUESTS = ("{c}", "{c}", "{c} please", "please, {c}", "hey, {c}")


def sample(rng: random.Random) -> tuple[str, str, list[str]]:
    """A prompt, its reply, and the key of the combination, which decides whether it is held out."""
    device = rng.choice(list(DEVICES))
    zone = rng.choice(ZONES)
    action = pick_action(DEVICES[device], rng)
    value = pick_value(DEVICES[device], rng) if action == "set" else None
    prompt = surface.vary(write_prompt(device, zone, action, value, rng), rng)
    return prompt, reply(device, zone, action, value), [f"command {device} {zone} {action} {value}"]


def reply(device: str, zone: str, action: str, value: float | None) -> str:
    fields = {"device": device, "zone": zone, "action": action}
    if value is not None:
        fields["value"] = value
    return json.dumps(fields, separators=(",", ":"))


def pick_action(device: Device, rng: random.Random) -> str:
    if device.settable and (not device.actions or rng.random() < 0.6):
        return "set"
    return rng.choice(device.actions)


def pick_value(device: Device, rng: random.Random) -> float:
    if device.is_temperature and rng.random() < 0.6:
        degrees = rng.randint(5, 35)
        return degrees + 0.5 if rng.random() < 0.3 else degrees
    return rng.randint(0, 100)


def write_prompt(device: str, zone: str, action: str, value: float | None, rng: random.Random) -> str:
    name = rng.choice(DEVICES[device].names)
    amount = None if value is None else write_value(DEVICES[device], value, rng)
    form = rng.random()
    if form < 0.08 and device != "lock":
        command = rng.choice(TERSE).format(zone=zone, name=name, word=amount or action)
        return end(rng.choice(TERSE_REQUESTS).format(c=command), ("", "", "."), rng)
    phrase = rng.choice(PHRASES[action] + PHRASES_OF_DEVICE.get((device, action), ()))
    if device == "lock" and form < 0.2:
        command = phrase.format(it=f"the {zone}")
    elif form < 0.16:
        command = f"in the {zone}, " + phrase.format(it=f"the {name}", n=amount)
    else:
        command = phrase.format(it=rng.choice(TARGETS).format(zone=zone, name=name), n=amount)
    if rng.random() < 0.2:
        return end(rng.choice(QUESTIONS).format(c=command), ("?", "?", ""), rng)
    return end(rng.choice(REQUESTS).format(c=command), ("", "", "", ".", ".", "!"), rng)


def write_value(device: Device, value: float, rng: random.Random) -> str:
    units = (" degrees", " C", "C", " °C") if device.is_temperature else ("%", "%", " percent", " %")
    return f"{value}{rng.choice(units) if rng.random() < 0.35 else ''}"


def end(text: str, marks: tuple[str, ...], rng: random.Random) -> str:
    return text + rng.choice(marks)
