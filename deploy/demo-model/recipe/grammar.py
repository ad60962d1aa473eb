"""Conversations from the tasks, and the split that keeps some combinations out of training.

    python grammar.py [--held-out] [--count N]     print some
"""

import argparse
import hashlib
import random

import commands
import telemetry

TASKS = {"command": commands.sample, "telemetry": telemetry.sample}
HELD_OUT_PERCENT = 10
TURNS = ((1, 74), (2, 12), (3, 8), (5, 4), (8, 2))

Exchange = tuple[str, str]


def is_held_out(key: str) -> bool:
    """Decided by the combination itself (device, zone, action, value; or place, quantity, value), in every phrasing of it."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % 100 < HELD_OUT_PERCENT


def exchange(task: str, held_out: bool, rng: random.Random) -> Exchange:
    """A prompt and its reply: for training no key is held out, for evaluation at least one is."""
    while True:
        prompt, reply, keys = TASKS[task](rng)
        if any(map(is_held_out, keys)) == held_out:
            return prompt, reply


def conversation(rng: random.Random) -> list[Exchange]:
    """For training: exchanges that do not depend on each other, most often a single one."""
    turns, weights = zip(*TURNS)
    return [exchange(rng.choice(list(TASKS)), False, rng) for _ in range(rng.choices(turns, weights)[0])]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--held-out", action="store_true")
    arguments.add_argument("--count", type=int, default=10)
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()
    rng = random.Random(options.seed)
    for task in TASKS:
        for _ in range(options.count):
            print(*exchange(task, options.held_out, rng), sep="\n    ")


if __name__ == "__main__":
    main()
