"""Readings given in the prompt and a question about them, answered by one sentence that repeats and judges them.

All of them in their order, or one by its name: a small model finds the value of one among several where its name stands in front.
"""

import random
from dataclasses import dataclass

from house import House

ROOMS = ("cold store", "plant room", "pump house", "control room", "cellar", "machine hall", "substation")
"""Beside the zones of the house."""
MACHINES = ("pump", "tank", "line", "machine", "silo", "compressor", "boiler", "gateway", "press", "motor")
HIGHEST_MACHINE = 20


@dataclass(frozen=True)
class Quantity:
    """Values count in tenths: `lowest` to `highest` is what may be read, and limits are multiples of `limit_step`.

    `asked`: questions about it alone, beside those that are made of its name.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    spoken: str
    lowest: int
    highest: int
    limit_step: int
    decimals: tuple[int, ...]
    asked: tuple[str, ...] = ()


PERCENT = ("%", " %", " percent")
QUANTITIES = (
    Quantity(
        ("temperature", "temperature", "temp"), (" C", " C", "C", " °C", " degrees"), "{} C", 100, 990, 10, (0, 0, 1),
        ("how warm is {the_place}?", "how hot is it?", "how warm is it?", "is it too hot?", "is {the_place} too warm?", "how cold is it?"),
    ),
    Quantity(("pressure",), (" bar", "bar"), "{} bar", 5, 99, 5, (1,)),
    Quantity(
        ("humidity", "relative humidity"), PERCENT, "{} % humidity", 100, 990, 50, (0,),
        ("how humid is it?", "is it too humid?", "is it damp in there?", "how humid is {the_place}?"),
    ),
    Quantity(("level", "fill level"), PERCENT, "a level of {} %", 100, 990, 50, (0,), ("how full is it?", "how full is {the_place}?", "is it full?")),
    Quantity(("flow", "flow rate"), (" l/min", "l/min"), "{} l/min", 100, 990, 50, (0,), ("how much flows?", "does it flow?")),
    Quantity(("vibration",), (" mm/s", "mm/s"), "{} mm/s", 1, 99, 5, (1,), ("does it vibrate?", "does it shake too much?")),
    Quantity(("speed",), (" rpm", "rpm"), "{} rpm", 10000, 35000, 1000, (0,), ("how fast is it?", "how fast does it turn?", "is it too fast?")),
    Quantity(("current",), (" A", "A"), "{} A", 100, 630, 10, (0, 1), ("how many amps is it?", "how much current does it draw?")),
    Quantity(("voltage",), (" V", "V"), "{} V", 2000, 2600, 50, (0,), ("how many volts are there?",)),
    Quantity(("power", "power draw"), (" kW", "kW"), "{} kW", 1, 99, 5, (1,), ("how much power does it use?", "how many kilowatts is it?")),
    Quantity(
        ("CO2", "carbon dioxide"), (" ppm", "ppm"), "{} ppm CO2", 4000, 9900, 500, (0,),
        ("how is the air?", "is the air good?", "how bad is the air?"),
    ),
)  # fmt: skip

UPPER = (" (limit {high})", " (limit {high})", " (limit {high}{unit})", " (max {high})", " (maximum {high})", ", limit {high}", ", max {high}", " of at most {high}")
LOWER = (" (min {low})", " (minimum {low})", " (min {low}{unit})", ", min {low}", " of at least {low}")

STATED = ("{name} {value}", "{name} {value}", "{name} {value}", "{name}: {value}", "{name} is {value}", "{name} = {value}", "{name} at {value}")
REPORTS = (
    "{place}: {readings}. {question}", "{place}: {readings}. {question}", "{place}: {readings}. {question}",
    "{place} {readings}. {question}", "{place} - {readings}. {question}", "{the_place} reads {readings}. {question}",
    "readings of {the_place}: {readings}. {question}", "here are the readings from {the_place}: {readings}. {question}",
    "{question} {place}: {readings}", "{question} {place}: {readings}.", "{readings} at {the_place}. {question}",
    "telemetry for {the_place}: {readings}. {question}", "{the_place} has {readings}. {question}", "in {the_place}: {readings}. {question}",
    "sensor data of {the_place}: {readings}. {question}", "i read {readings} at {the_place}. {question}",
)  # fmt: skip
ABOUT_ALL = (
    "how is it?", "how is it?", "how is it doing?", "how are things?", "summarise.", "summarize.", "summarise this.", "summarise please",
    "give me a summary.", "report.", "please report.", "status?", "what is the status?", "is everything ok?", "is everything normal?",
    "is it all right?", "anything wrong?", "any problem?", "tell me how it looks.", "how is {the_place}?", "how does {the_place} look?",
    "what is going on?", "sum it up in a sentence.", "say it in one sentence.", "", "is that ok?", "does that look good?", "should i worry?",
    "is this within limits?", "are these values fine?", "what do you make of it?", "is that too much?", "all good?",
)  # fmt: skip
ABOUT_ONE = (
    "what is the {name}?", "what is the {name}?", "how is the {name}?", "is the {name} ok?", "is the {name} normal?", "what about the {name}?",
    "tell me the {name}.", "give me the {name}.", "how high is the {name}?", "is the {name} too high?", "{name}?", "is the {name} all right?",
    "what {name} does {the_place} have?", "what is the {name} of {the_place}?", "only the {name} please.", "and the {name}?",
)  # fmt: skip
THEN_ONE = ("and the {name}?", "and the {name}?", "what about the {name}?", "how is the {name}?", "what is the {name}?", "the {name}?", "and {name}?", "is the {name} ok?", "now the {name}", "and what is the {name}?")
"""Asked about readings that were given before."""


@dataclass(frozen=True)
class Reading:
    quantity: Quantity
    name: str
    value: str
    stated: str
    verdict: str

    def spoken(self) -> str:
        return self.judged(self.quantity.spoken.format(self.value))

    def reply(self) -> str:
        """One sentence on this reading alone."""
        return self.judged(f"The {self.quantity.names[0]} is {self.value} {self.quantity.units[0].strip()}") + "."

    def judged(self, text: str) -> str:
        return f"{text} ({self.verdict})" if self.verdict else text


@dataclass(frozen=True)
class Report:
    """Readings of one place."""

    place: str
    the_place: str
    readings: tuple[Reading, ...]

    def reply(self) -> str:
        """One sentence on all readings."""
        subject = self.the_place[0].upper() + self.the_place[1:]
        spoken = [reading.spoken() for reading in self.readings]
        listed = f"{', '.join(spoken[:-1])} and {spoken[-1]}" if len(spoken) > 1 else spoken[0]
        return f"{subject} is at {listed}."

    def keys(self) -> list[str]:
        return [f"telemetry {self.place} {reading.quantity.names[0]} {reading.value}" for reading in self.readings]


def take(house: House, rng: random.Random) -> Report:
    place, the_place = pick_place(house, rng)
    has_limits = rng.random() < 0.85
    count = rng.choices((1, 2, 3), (40, 42, 18))[0]
    readings = tuple(take_reading(quantity, has_limits, rng) for quantity in rng.sample(QUANTITIES, count))
    return Report(place, the_place, readings)


def ask(report: Report, rng: random.Random) -> tuple[str, str]:
    """The readings with a question about all or one of them, and its answer."""
    reply = report.reply()
    question = rng.choice(ABOUT_ALL)
    if rng.random() < 0.4:
        reading = rng.choice(report.readings)
        reply = reading.reply()
        question = rng.choice(reading.quantity.asked if reading.quantity.asked and rng.random() < 0.3 else ABOUT_ONE)
        question = question.replace("{name}", reading.name)
    stated = rng.choice((", ", ", ", "; ", " and ")).join(reading.stated for reading in report.readings)
    text = rng.choice(REPORTS).format(place=report.place, the_place=report.the_place, readings=stated, question=question)
    return text.format(the_place=report.the_place).strip(), reply


def ask_again(report: Report, rng: random.Random) -> tuple[str, str]:
    """A question about one of the readings that were given before, and its answer."""
    reading = rng.choice(report.readings)
    return rng.choice(THEN_ONE).format(name=reading.name), reading.reply()


def pick_place(house: House, rng: random.Random) -> tuple[str, str]:
    """The place as a label and as the subject of a sentence."""
    if rng.random() < 0.7:
        room = rng.choice((*house.zones, *ROOMS))
        return room, f"the {room}"
    machine = f"{rng.choice(MACHINES)} {rng.randint(1, HIGHEST_MACHINE)}"
    return machine, machine


def take_reading(quantity: Quantity, has_limits: bool, rng: random.Random) -> Reading:
    step = 1 if rng.choice(quantity.decimals) else 10
    unit = rng.choice(quantity.units)
    low, high, form = pick_limit(quantity, rng) if has_limits else (None, None, "")
    tenths = pick_value(quantity, low or high, rng) // step * step
    value = f"{tenths / 10:.1f}" if step == 1 else str(tenths // 10)
    limit = form.format(low=low and write_limit(low), high=high and write_limit(high), unit=unit)
    name = rng.choice(quantity.names)
    stated = rng.choice(STATED).format(name=name, value=value + unit) + limit
    return Reading(quantity, name, value, stated, judge(tenths, low, high))


def pick_limit(quantity: Quantity, rng: random.Random) -> tuple[int | None, int | None, str]:
    """A lowest or a highest value that is still normal, and how it is written."""
    first = -(-quantity.lowest // quantity.limit_step) + 1
    limit = rng.randrange(first, quantity.highest // quantity.limit_step) * quantity.limit_step
    return (limit, None, rng.choice(LOWER)) if rng.random() < 0.25 else (None, limit, rng.choice(UPPER))


def pick_value(quantity: Quantity, limit: int | None, rng: random.Random) -> int:
    """Anything that may be read: as often above the limit as not, and one in three close to it, where judging is hard."""
    if limit is None:
        return rng.randint(quantity.lowest, quantity.highest)
    reach = max((quantity.highest - quantity.lowest) // 20, 10) if rng.random() < 0.35 else quantity.highest
    lowest, highest = max(quantity.lowest, limit - reach), min(quantity.highest, limit + reach)
    if rng.random() < 0.5:
        return rng.randint(lowest, limit)
    return rng.randint(limit, highest)


def judge(tenths: int, low: int | None, high: int | None) -> str:
    """The limit before the verdict: a small model judges well once both numbers stand side by side."""
    if high is not None:
        return f"limit {write_limit(high)}, {'high' if tenths > high else 'normal'}"
    if low is not None:
        return f"minimum {write_limit(low)}, {'low' if tenths < low else 'normal'}"
    return ""


def write_limit(tenths: int) -> str:
    return f"{tenths / 10:g}"
