"""Counts exact replies of the committed weights on held-out exchanges, through Hugging Face in fp32.

    python evaluate.py [--count 2000] [--before 0] [--bits 8|4 --block 64]
    python evaluate.py --every-value              "set the … to N" for every device, zone and N of 0 to 100, plainly put
"""

import argparse
import random
from itertools import product
from pathlib import Path

import torch
from transformers import RecurrentGemmaForCausalLM

import commands
import grammar
import tokenizer
from quantize import round_weights
from train import IGNORED, Encoder, pad

BATCH_ROWS = 64
SHOWN_MISTAKES = 5


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--model", type=Path, default=tokenizer.MODEL)
    arguments.add_argument("--count", type=int, default=2000, help="held-out exchanges of each task")
    arguments.add_argument("--before", type=int, default=0, help="exchanges that precede it in the conversation")
    arguments.add_argument("--bits", type=int, choices=(8, 4), help="round the weights as an export does")
    arguments.add_argument("--block", type=int, default=64)
    arguments.add_argument("--every-value", action="store_true")
    arguments.add_argument("--seed", type=int, default=1)
    options = arguments.parse_args()
    model = RecurrentGemmaForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    if options.bits:
        round_weights(model, options.bits, options.block)
    sets = {"every value": every_value()} if options.every_value else held_out(options.count, options.before, options.seed)
    for name, conversations in sets.items():
        mistakes = wrong_replies(model, conversations)
        share = 1 - len(mistakes) / len(conversations)
        print(f"{name}: {share:.2%} of {len(conversations)} exact")
        for (prompt, expected), reply in mistakes[:SHOWN_MISTAKES]:
            print(f"    {prompt}\n        wanted {expected}\n        likely {reply}")


def held_out(count: int, before: int, seed: int) -> dict[str, list[list[grammar.Exchange]]]:
    """By task: conversations whose last exchange is held out."""
    sets = {}
    for task in grammar.TASKS:
        rng = random.Random(f"evaluate {task} {seed}")
        sets[task] = [
            [grammar.exchange(rng.choice(list(grammar.TASKS)), False, rng) for _ in range(before)]
            + [grammar.exchange(task, True, rng)]
            for _ in range(count)
        ]
    return sets


def every_value() -> list[list[grammar.Exchange]]:
    settable = [name for name, device in commands.DEVICES.items() if device.settable]
    return [
        [(f"Please set the {zone} {device} to {value}", commands.reply(device, zone, "set", value))]
        for device, zone, value in product(settable, commands.ZONES, range(101))
    ]


@torch.no_grad()
def wrong_replies(model: RecurrentGemmaForCausalLM, conversations: list[list[grammar.Exchange]]) -> list[tuple[grammar.Exchange, str]]:
    """Where greedy decoding would not give the last reply: some next token of it is not the likeliest.

    The text that comes with a mistake is the likeliest token at each place of the right reply.
    """
    encode = Encoder()
    mistakes = []
    by_length = sorted(conversations, key=lambda conversation: len(encode(conversation)[0]))
    for first in range(0, len(by_length), BATCH_ROWS):
        group = by_length[first : first + BATCH_ROWS]
        ids, targets = pad([encode(conversation) for conversation in group])
        likeliest = model(ids, use_cache=False).logits.argmax(-1)
        for conversation, row, target in zip(group, likeliest, targets):
            reply = encode.plain(conversation[-1][1]) + [tokenizer.END_OF_TURN]
            end = int((target != IGNORED).nonzero()[-1]) + 1
            guess = row[end - len(reply) : end].tolist()
            if guess != reply:
                mistakes.append((conversation[-1], encode.tokenizer.decode(guess)))
    return mistakes


if __name__ == "__main__":
    main()
