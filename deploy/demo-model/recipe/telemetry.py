"""Task 2: readings given in the prompt, answered by one sentence that repeats them and judges them by the stated limits."""

import random
from dataclasses import dataclass

import commands
import surface

ROOMS = commands.ZONES + ("server room", "cold store", "plant room", "pump house", "control room", "cellar")
MACHINES = ("pump", "tank", "line", "machine", "silo", "compressor", "boiler", "gateway")
HIGHEST_MACHINE = 20


@dataclass(frozen=True)
class Quantity:
    """Values count in tenths: `lowest` to `highest` is what may be read, and limits are multiples of `limit_step`."""

    names: tuple[str, ...]
    units: tuple[str, ...]
    spoken: str
    lowest: int
    highest: int
    limit_step: int
    decimals: tuple[int, ...]


PERCENT = ("%", " %", " percent")
QUANTITIES = (
    Quantity(("temperature", "temperature", "temp"), (" C", " C", "C", " °C", " degrees"), "{} C", 100, 990, 10, (0, 0, 1)),
    Quantity(("pressure",), (" bar", "bar"), "{} bar", 5, 99, 5, (1,)),
    Quantity(("humidity", "relative humidity"), PERCENT, "{} % humidity", 100, 990, 50, (0,)),
    Quantity(("level", "fill level"), PERCENT, "{} % full", 100, 990, 50, (0,)),
    Quantity(("flow", "flow rate"), (" l/min", "l/min"), "{} l/min", 100, 990, 50, (0,)),
    Quantity(("vibration",), (" mm/s", "mm/s"), "{} mm/s", 1, 99, 5, (1,)),
    Quantity(("speed",), (" rpm", "rpm"), "{} rpm", 10000, 35000, 1000, (0,)),
    Quantity(("current",), (" A", "A"), "{} A", 100, 630, 10, (0, 1)),
    Quantity(("voltage",), (" V", "V"), "{} V", 2000, 2600, 50, (0,)),
    Quantity(("power", "power draw"), (" kW", "kW"), "{} kW", 1, 99, 5, (1,)),
    Quantity(("CO2", "carbon dioxide"), (" ppm", "ppm"), "{} ppm CO2", 4000, 9900, 500, (0,)),
)

UPPER = (" (limit {high})", " (limit {high})", " (limit {high}{unit})", " (max {high})", " (maximum {high})", ", limit {high}", ", max {high}")
LOWER = (" (min {low})", " (minimum {low})", " (min {low}{unit})", ", min {low}")

STATED = ("{name} {value}", "{name} {value}", "{name} {value}", "{name}: {value}", "{name} is {value}", "{name} = {value}")
REPORTS = (
    "{place}: {readings}. {question}", "{place}: {readings}. {question}", "{place}: {readings}. {question}",
    "{place} {readings}. {question}", "{place} - {readings}. {question}", "{the_place} reads {readings}. {question}",
    "readings of {the_place}: {readings}. {question}", "here are the readings from {the_place}: {readings}. {question}",
    "{question} {place}: {readings}", "{question} {place}: {readings}.", "{readings} at {the_place}. {question}",
    "telemetry for {the_place}: {readings}. {question}",
)  # fmt: skip
QUESTIONS = (
    "how is it?", "how is it?", "how is it doing?", "how are things?", "summarise.", "summarize.", "summarise this.", "summarise please",
    "give me a summary.", "report.", "please report.", "status?", "what is the status?", "is everything ok?", "is everything normal?",
    "is it all right?", "anything wrong?", "any problem?", "tell me how it looks.", "how is {the_place}?", "how does {the_place} look?",
    "what is going on?", "sum it up in a sentence.", "say it in one sentence.", "",
)  # fmt: skip


@dataclass(frozen=True)
class Reading:
    quantity: Quantity
    value: str
    stated: str
    verdict: str

    def spoken(self) -> str:
        spoken = self.quantity.spoken.format(self.value)
        return f"{spoken} ({self.verdict})" if self.verdict else spoken


def sample(rng: random.Random) -> tuple[str, str, list[str]]:
    """A prompt, its reply, and the keys of its combinations, which decide whether it is held out."""
    place, the_place = pick_place(rng)
    has_limits = rng.random() < 0.85
    count = rng.choices((1, 2), (45, 55))[0]
    readings = [take_reading(quantity, has_limits, rng) for quantity in rng.sample(QUANTITIES, count)]
    question = rng.choice(QUESTIONS)
    text = rng.choice(REPORTS).format(place=place, the_place=the_place, readings=join_stated(readings, rng), question=question)
    prompt = surface.vary(text.format(the_place=the_place).strip(), rng)
    keys = [f"telemetry {place} {reading.quantity.names[0]} {reading.value}" for reading in readings]
    return prompt, reply(the_place, readings), keys


def reply(the_place: str, readings: list[Reading]) -> str:
    subject = the_place[0].upper() + the_place[1:]
    return f"{subject} is at {' and '.join(reading.spoken() for reading in readings)}."


def pick_place(rng: random.Random) -> tuple[str, str]:
    """The place as a label and as the subject of a sentence."""
    if rng.random() < 0.7:
        room = rng.choice(ROOMS)
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
    stated = rng.choice(STATED).format(name=rng.choice(quantity.names), value=value + unit) + limit
    return Reading(quantity, value, stated, judge(tenths, low, high))


def pick_limit(quantity: Quantity, rng: random.Random) -> tuple[int | None, int | None, str]:
    """A lowest or a highest value that is still normal, and how it is written."""
    first = -(-quantity.lowest // quantity.limit_step) + 1
    limit = rng.randrange(first, quantity.highest // quantity.limit_step) * quantity.limit_step
    return (limit, None, rng.choice(LOWER)) if rng.random() < 0.25 else (None, limit, rng.choice(UPPER))


def pick_value(quantity: Quantity, limit: int | None, rng: random.Random) -> int:
    """Anything that may be read; half of the time above the limit, half of the time below or at it."""
    if limit is None:
        return rng.randint(quantity.lowest, quantity.highest)
    if rng.random() < 0.5:
        return rng.randint(quantity.lowest, limit)
    return rng.randint(limit, quantity.highest)


def judge(tenths: int, low: int | None, high: int | None) -> str:
    """The limit before the verdict: a small model judges well once both numbers stand side by side."""
    if high is not None:
        return f"limit {write_limit(high)}, {'high' if tenths > high else 'normal'}"
    if low is not None:
        return f"minimum {write_limit(low)}, {'low' if tenths < low else 'normal'}"
    return ""


def write_limit(tenths: int) -> str:
    return f"{tenths / 10:g}"


def join_stated(readings: list[Reading], rng: random.Random) -> str:
    return rng.choice((", ", ", ", "; ", " and ")).join(reading.stated for reading in readings)
