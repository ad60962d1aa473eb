"""Writes texts by which a checkpoint is rounded to 4 bits and compared, as `agent-cli export --calibrate` and `--compare` read them.

    python samples.py --out FOLDER [--house house.json]

`calibrate.jsonl` is of conversations to train on, `compare.jsonl` of held-out ones of every kind in turn. Needs nothing but Python.
"""

import argparse
import json
import random
from pathlib import Path

import grammar
import house as houses
import terms

CONVERSATIONS = 1000
"""Of each file: more than is read by default."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--out", type=Path, required=True, help="the folder for both files")
    arguments.add_argument("--house", type=Path, default=houses.DEFAULT, help="devices and zones of your own")
    options = arguments.parse_args()
    house, known = houses.load_or_end(options.house, arguments), terms.load()
    rng = random.Random("calibrate")
    each = CONVERSATIONS // len(grammar.KINDS)
    held_out = [grammar.some_held_out(kind, each, 2, house, known) for kind in grammar.KINDS]
    options.out.mkdir(parents=True, exist_ok=True)
    write(options.out / "calibrate.jsonl", [grammar.conversation(house, known, rng) for _ in range(CONVERSATIONS)])
    write(options.out / "compare.jsonl", [talk for turn in zip(*filter(None, held_out)) for talk in turn])


def write(path: Path, talks: list[list[grammar.Exchange]]) -> None:
    """A conversation a line: all up to the last reply is given."""
    lines = []
    for talk in talks:
        before = "".join(f"{grammar.turn(exchange.prompt)}{exchange.reply}<end_of_turn>\n" for exchange in talk[:-1])
        prompt = before + grammar.turn(talk[-1].prompt)
        lines.append(json.dumps({"prompt": prompt, "completion": f"{talk[-1].reply}<end_of_turn>"}, ensure_ascii=False))
    path.write_text("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    main()
