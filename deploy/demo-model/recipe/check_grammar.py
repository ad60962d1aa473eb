"""Checks of the data, with nothing but Python: nothing held out is trained on, and every action is one that its device can do.

    python check_grammar.py
"""

import json
import random

import grammar
import house as houses
import terms
from house import EVERYWHERE, HIGHEST, LOWEST, Action, House

CONVERSATIONS = 20_000
HELD_OUT = 500


def main() -> None:
    house, known = houses.load(), terms.load()
    rng = random.Random(0)
    trained = [grammar.conversation(house, known, rng) for _ in range(CONVERSATIONS)]
    exchanges = [exchange for talk in trained for exchange in talk]
    for exchange in exchanges:
        for action in actions(exchange.reply):
            check_action(action, house)
            assert not grammar.is_held_out(action.key()), f"{action} is held out and was trained on: {exchange}"
    seen = {conversation_text(talk[: count + 1]) for talk in trained for count in range(len(talk))}
    for kind in grammar.KINDS:
        talks = grammar.some_held_out(kind, HELD_OUT, 1, house, known)
        for talk in talks:
            found = actions(talk[-1].reply)
            assert not found or any(grammar.is_held_out(action.key()) for action in found), f"nothing of it is held out: {talk}"
            for exchange in talk[:-1]:
                assert not any(grammar.is_held_out(action.key()) for action in actions(exchange.reply)), f"held out before the end: {talk}"
        leaked = [talk for talk in talks if conversation_text(talk) in seen]
        assert not leaked, f"{kind}: trained on: {leaked[0]}"
        print(f"{kind}: {len(talks)} held-out conversations, none among {len(exchanges):,} exchanges to train on")


def actions(reply: str) -> list[Action]:
    """The actions of a reply, read as a client reads them."""
    if not reply.startswith("{"):
        return []
    lines = [json.loads(line) for line in reply.split("\n")]
    return [Action(line["device"], line["zone"], line["action"], line.get("value")) for line in lines]


def check_action(action: Action, house: House) -> None:
    device = house.devices[action.device]
    assert action.zone in house.zones or action.zone == EVERYWHERE, action
    assert action.verb in device.actions and (action.value is None) == (action.verb != "set"), action
    assert action.value is None or LOWEST <= action.value <= HIGHEST, action


def conversation_text(talk: list[grammar.Exchange]) -> str:
    return "\n".join(f"{exchange.prompt.lower()}\n{exchange.reply}" for exchange in talk)


if __name__ == "__main__":
    main()
