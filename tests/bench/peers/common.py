"""What the Python peers share: which steps are timed, the prompt, the clock and the memory of this process."""
import json
import time

PREFILL = 128       # tokens of the prefill that is timed
PREFILLS = 3        # how often, each from an empty state
STEPS = 32          # steps that are timed
WARM_STEPS = 8      # steps before them


def prompt(count):
    """Tokens from a fixed recurrence: any will do, and the same for every run and every peer."""
    return [3 + i * 7919 % 250_000 for i in range(count)]


def timed(function):
    """Seconds that a call takes, and what it returns."""
    begun = time.perf_counter()
    result = function()
    return time.perf_counter() - begun, result


def row(measure, position, tokens, seconds, note=None):
    """One measurement: the seconds of every repetition, each of which processes `tokens` tokens from `position` on."""
    return {"measure": measure, "position": position, "tokens": tokens, "seconds": seconds} | ({"note": note} if note else {})


def resident():
    """Bytes of this process that are in memory."""
    with open("/proc/self/status") as lines:
        fields = dict(line.split(":", 1) for line in lines)
    return int(fields["VmRSS"].split()[0]) * 1024


def report(path, **fields):
    """Writes what was measured as one JSON object."""
    with open(path, "w") as out:
        json.dump(fields, out, indent=1)
