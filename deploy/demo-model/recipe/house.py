"""Which devices there are, in which zones, what they are called and what they can do: read from a file that may be your own.

`zones` maps the name in an action to the names that people use; `devices` likewise, each with
`names`, `actions` (of `ACTIONS`), and where it helps `unit` (`percent` or `degrees`) and `phrases` of its own
(`{it}` is the device, `{n}` the value).
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

ACTIONS = ("on", "off", "open", "close", "lock", "unlock", "set")
UNITS = ("percent", "degrees")
DEFAULT = Path(__file__).parent / "house.json"
EVERYWHERE = "all"
"""The zone of an action that is meant for all of them."""
LOWEST, HIGHEST = 0, 100
"""What a value may be."""


@dataclass(frozen=True)
class Device:
    names: tuple[str, ...]
    actions: tuple[str, ...]
    degrees: bool
    phrases: dict[str, tuple[str, ...]]

    @property
    def is_settable(self) -> bool:
        return "set" in self.actions


@dataclass(frozen=True)
class House:
    zones: dict[str, tuple[str, ...]]
    devices: dict[str, Device]

    @property
    def is_settable(self) -> bool:
        return any(device.is_settable for device in self.devices.values())


@dataclass(frozen=True)
class Action:
    """What one JSON object of a reply says."""

    device: str
    zone: str
    verb: str
    value: float | None = None

    def reply(self) -> str:
        fields = {"device": self.device, "zone": self.zone, "action": self.verb}
        if self.value is not None:
            fields["value"] = self.value
        return json.dumps(fields, separators=(",", ":"))

    def key(self) -> str:
        """Names the combination, which decides whether it is held out."""
        return f"command {self.device} {self.zone} {self.verb} {self.value}"


class HouseError(ValueError):
    """What is wrong with a file, and where."""


def load(path: Path = DEFAULT) -> House:
    try:
        content = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise HouseError(f"{path}: not JSON: {error}") from None
    zones = {zone: names_of(f"{path}: zones.{zone}", names) for zone, names in content.get("zones", {}).items()}
    devices = {name: device(f"{path}: devices.{name}", fields) for name, fields in content.get("devices", {}).items()}
    if len(zones) < 2 or not devices:
        raise HouseError(f"{path}: needs at least two entries in `zones` and one in `devices`, and has {len(zones)} and {len(devices)}")
    return House(zones, devices)


def load_or_end(path: Path, arguments: argparse.ArgumentParser) -> House:
    """For programs: what is wrong with the file ends them with a line that says it."""
    try:
        return load(path)
    except (HouseError, OSError) as error:
        arguments.error(f"--house {error}" if isinstance(error, HouseError) else f"--house {path}: {error.strerror}")


def device(where: str, fields: dict) -> Device:
    names = names_of(f"{where}.names", fields.get("names"))
    actions = tuple(fields.get("actions", ()))
    unknown = [action for action in actions if action not in ACTIONS]
    if unknown or not actions:
        raise HouseError(f"{where}.actions: {unknown or 'nothing'} is not allowed: name at least one of {', '.join(ACTIONS)}")
    unit = fields.get("unit", "percent")
    if unit not in UNITS:
        raise HouseError(f"{where}.unit: {unit!r} is not allowed: write one of {', '.join(UNITS)}")
    phrases = {action: tuple(texts) for action, texts in fields.get("phrases", {}).items()}
    for action, texts in phrases.items():
        for text in texts:
            if action not in actions or "{it}" not in text or ("{n}" in text) != (action == "set"):
                raise HouseError(f"{where}.phrases.{action}: {text!r}: is of one of its actions, and has {{it}}, and {{n}} where it sets")
    return Device(names, actions, unit == "degrees", phrases)


def names_of(where: str, names: object) -> tuple[str, ...]:
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise HouseError(f"{where}: needs a list of at least one name, not {names!r}")
    return tuple(names)
