"""Conversations of all tasks, and the split that keeps some combinations out of training.

    python grammar.py [--count N]                          print some held-out conversations of each kind
    python grammar.py --sets FOLDER [--count N]            write them as FOLDER/KIND.jsonl, one conversation a line

Needs nothing but Python.
"""

import argparse
import hashlib
import json
import random
from dataclasses import dataclass
from pathlib import Path

import commands
import followups
import house as houses
import refusals
import smalltalk
import surface
import telemetry
import terms
from house import Action, House

HELD_OUT_PERCENT = 10
TURNS = ((1, 50), (2, 20), (3, 16), (4, 7), (6, 5), (8, 2))
FOLLOW_RATE = 0.6
REMEMBERED = 2
"""For how many other exchanges "make it 50" still means the last action."""
TRIES = 200
"""Until an exchange of the wanted kind is given up."""

FRESH = {"single": 25, "double": 15, "telemetry": 20, "term": 15, "smalltalk": 3, "topic": 9, "unknown": 3, "unable": 6, "missing": 5}
"""Tasks that need no turn before them, by weight."""
DISTRACTING = ("telemetry", "term", "smalltalk", "topic")
"""Of those, what may come between an action and a turn that goes back to it."""
FOLLOWED = {"single": 70, "missing": 15, "telemetry": 15}
"""What is gone back to in evaluation, by weight."""
NO_ACTION = ("topic", "unknown", "unable", "missing")

KINDS = ("single", "double", "telemetry", "term", "smalltalk", "no-action", "follow-up", "after-distractor")
"""Of held-out conversations."""


@dataclass(frozen=True)
class Exchange:
    prompt: str
    reply: str


def is_held_out(key: str) -> bool:
    """Decided by the combination itself (device, zone, action, value; place, quantity, value; topic; …), in every phrasing of it."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % 100 < HELD_OUT_PERCENT


def turn(prompt: str) -> str:
    """What the chat template puts around a prompt, up to where the reply begins."""
    return f"<start_of_turn>user\n{prompt}<end_of_turn>\n<start_of_turn>model\n"


class Conversation:
    """What was said so far, and what the next turn may go back to."""

    def __init__(self, house: House, known: tuple[terms.Term, ...], rng: random.Random):
        self.house, self.known, self.rng = house, known, rng
        self.exchanges: list[Exchange] = []
        self.action: Action | None = None
        self.age = 0
        self.pending: refusals.Pending | None = None
        self.report: telemetry.Report | None = None

    def add(self, task: str, held_out: bool = False) -> bool:
        """An exchange of this task: for training no key of it is held out, for evaluation at least one is.

        False: there seems to be none, such as where all that can follow is held out.
        """
        for _ in range(TRIES):
            prompt, reply, keys, then = self.sample(task)
            if any(map(is_held_out, keys)) == held_out:
                self.exchanges.append(Exchange(surface.vary(prompt, self.rng), reply))
                self.remember(task, then)
                return True
        return False

    def sample(self, task: str) -> tuple[str, str, list[str], object]:
        """Prompt, reply, the keys of its combinations, and what the next turn may go back to."""
        house, rng = self.house, self.rng
        match task:
            case "single" | "double":
                said = (commands.single if task == "single" else commands.double)(house, rng)
                return said.prompt, said.reply(), said.keys(), said.actions[0] if task == "single" else None
            case "telemetry":
                report = telemetry.take(house, rng)
                return *telemetry.ask(report, rng), report.keys(), report
            case "term":
                return *terms.ask(self.known, rng), None
            case "smalltalk":
                return *smalltalk.chat(rng), None
            case "topic":
                return *refusals.topic(house, rng), None
            case "unknown":
                return *refusals.unknown(house, rng), None
            case "unable":
                return *refusals.unable(house, rng), None
            case "missing":
                return refusals.missing(house, rng)
            case "follow-up":
                return self.sample_follow_up()
        raise ValueError(f"no task {task!r}")

    def sample_follow_up(self) -> tuple[str, str, list[str], object]:
        if self.pending:
            prompt, action = followups.after_question(self.house, self.pending, self.rng)
            if action is None:
                return prompt, refusals.LEFT_ALONE, [f"never mind {prompt} {self.pending.action.key()}"], None
            return prompt, action.reply(), [action.key()], action
        if self.report and (self.action is None or self.rng.random() < 0.5):
            prompt, reply = telemetry.ask_again(self.report, self.rng)
            return prompt, reply, [f"again {prompt} {key}" for key in self.report.keys()], self.report
        assert self.action, "there is something to go back to"
        prompt, action = followups.after_action(self.house, self.action, self.rng)
        return prompt, action.reply(), [action.key()], action

    def remember(self, task: str, then: object) -> None:
        self.pending = then if isinstance(then, refusals.Pending) else None
        if isinstance(then, Action):
            self.action, self.age, self.report = then, 0, None
        elif task not in DISTRACTING and not isinstance(then, telemetry.Report):
            self.action, self.report = None, None
        else:
            self.age += 1
            self.report = then if isinstance(then, telemetry.Report) and len(then.readings) > 1 else None
        if self.age > REMEMBERED:
            self.action = None

    def can_follow(self) -> bool:
        return bool(self.pending or self.report or self.action)


def conversation(
    house: House, known: tuple[terms.Term, ...], rng: random.Random, fresh: dict[str, float] = FRESH
) -> list[Exchange]:
    """For training."""
    turns, weights = zip(*TURNS)
    tasks, shares = zip(*fresh.items())
    talk = Conversation(house, known, rng)
    for _ in range(rng.choices(turns, weights)[0]):
        follows = talk.can_follow() and rng.random() < FOLLOW_RATE
        if not (follows and talk.add("follow-up")):
            talk.add(rng.choices(tasks, shares)[0])
    return talk.exchanges


def held_out(kind: str, house: House, known: tuple[terms.Term, ...], rng: random.Random) -> list[Exchange] | None:
    """A conversation whose last exchange has a combination that training never sees. `None`: a small house may have none."""
    for _ in range(TRIES):
        talk = Conversation(house, known, rng)
        last = kind
        if kind == "no-action":
            tasks, shares = zip(*((task, FRESH[task]) for task in NO_ACTION))
            last = rng.choices(tasks, shares)[0]
        elif kind in ("follow-up", "after-distractor"):
            last = "follow-up"
            before, shares = zip(*FOLLOWED.items())
            talk.add("single" if kind == "after-distractor" else rng.choices(before, shares)[0])
            if kind == "after-distractor":
                talk.add(rng.choice(DISTRACTING))
                # What is gone back to is the action.
                talk.report = None
            if not talk.can_follow():
                continue
        if talk.add(last, True):
            return talk.exchanges
    return None


def some_held_out(kind: str, count: int, seed: int, house: House, known: tuple[terms.Term, ...]) -> list[list[Exchange]]:
    """As many as asked for, or none."""
    rng = random.Random(f"held out {kind} {seed}")
    talks = []
    while len(talks) < count:
        talk = held_out(kind, house, known, rng)
        if talk is None:
            return []
        talks.append(talk)
    return talks


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--count", type=int, default=10, help="conversations of each kind")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--house", type=Path, default=houses.DEFAULT, help="devices and zones of your own")
    arguments.add_argument("--sets", type=Path, help="a folder for the sets")
    options = arguments.parse_args()
    house, known = houses.load_or_end(options.house, arguments), terms.load()
    for kind in KINDS:
        talks = some_held_out(kind, options.count, options.seed, house, known)
        if not talks:
            print(f"{kind}: nothing is held out in this house")
            if options.sets:
                (options.sets / f"{kind}.jsonl").unlink(missing_ok=True)
        elif options.sets:
            options.sets.mkdir(parents=True, exist_ok=True)
            lines = [json.dumps([[exchange.prompt, exchange.reply] for exchange in talk], ensure_ascii=False) for talk in talks]
            (options.sets / f"{kind}.jsonl").write_text("".join(f"{line}\n" for line in lines))
        else:
            for talk in talks:
                print(f"--- {kind}", *(f"{exchange.prompt}\n    {exchange.reply.replace(chr(10), chr(10) + '    ')}" for exchange in talk), sep="\n")


if __name__ == "__main__":
    main()
