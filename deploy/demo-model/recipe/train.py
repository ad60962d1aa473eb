"""Trains the demo model and writes its weights in F16.

    python train.py [--tokens 28000000] [--out ..]
    python train.py --start ../model.safetensors --house house.json --out DIR --tokens 1000000 --peak-rate 1e-3
                                                         go on from weights, with devices and zones of your own

Every 400 steps the exact replies on some held-out conversations are counted; every ten minutes the weights are written.
"""

import argparse
import json
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

import grammar
import house as houses
import terms
import tokenizer
from model import Config, RecurrentGemma

POOL_CONVERSATIONS = 3_000
FINAL_RATE_SHARE = 0.01
WARM_UP_STEPS = 150
CHECK_EVERY_STEPS = 400
CHECK_CONVERSATIONS = 60
SAVE_EVERY_SECONDS = 600
LONGEST_ROW = 512
IGNORED = -100

Row = tuple[list[int], list[int]]
"""Token ids, and for each the id that follows where it belongs to a reply, else `IGNORED`."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--tokens", type=int, default=28_000_000, help="how many to train on, padding included")
    arguments.add_argument("--minutes", type=float, default=math.inf, help="end then at the latest, the rate decayed in step")
    arguments.add_argument("--start", type=Path, help="weights to go on from")
    arguments.add_argument("--peak-rate", type=float, default=3e-3)
    arguments.add_argument("--batch-tokens", type=int, default=8 * 512)
    arguments.add_argument("--bfloat16-share", type=share, default=0.0, help="how much of it is done in bfloat16: faster where the processor has it")
    arguments.add_argument("--house", type=Path, default=houses.DEFAULT, help="devices and zones of your own")
    arguments.add_argument("--weight", type=weight, action="append", default=[], metavar="TASK=WEIGHT", help="of a task, instead of that in grammar.FRESH")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--out", type=Path, default=tokenizer.MODEL)
    options = arguments.parse_args()
    if not (options.out / "tokenizer.json").exists():
        arguments.error(f"{options.out}/tokenizer.json: not found: `python tokenizer.py --out {options.out}` makes it; to go on from weights, copy theirs")
    torch.manual_seed(options.seed)
    config = Config()
    write_json(options.out / "config.json", config.to_hugging_face())
    write_json(options.out / "generation_config.json", generation_defaults())

    model = RecurrentGemma(config)
    if options.start:
        model.load_state_dict(load_file(options.start))
    optimizer = make_optimizer(model)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    encode = Encoder(options.out)
    house, known = houses.load_or_end(options.house, arguments), terms.load()
    drawn = {kind: grammar.some_held_out(kind, CHECK_CONVERSATIONS, 0, house, known) for kind in grammar.KINDS}
    held_out = {kind: check_batch(talks, encode) for kind, talks in drawn.items() if talks}
    started, saved, seen, step = time.time(), time.time(), 0, 0
    rng, fresh = random.Random(options.seed), {**grammar.FRESH, **dict(options.weight)}
    talks = iter(lambda: grammar.conversation(house, known, rng, fresh), None)
    for ids, targets in batches(talks, encode, options.batch_tokens, rng):
        elapsed = time.time() - started
        progress = max(seen / options.tokens, elapsed / 60 / options.minutes)
        set_rate(optimizer, options.peak_rate, step, progress)
        loss = train_step(model, optimizer, ids, targets, in_bfloat16=progress < options.bfloat16_share)
        seen, step = seen + ids.numel(), step + 1
        ended = progress >= 1.0
        if step % CHECK_EVERY_STEPS == 0 or ended:
            exact = "  ".join(f"{kind} {exact_share(model, *batch):.0%}" for kind, batch in held_out.items())
            pace = f"{elapsed / 60:.1f} min, {seen / elapsed:,.0f} tokens/s"
            print(f"step {step}  {seen:,} tokens  loss {loss:.4f}  exact: {exact}  {pace}", flush=True)
        if ended or time.time() - saved > SAVE_EVERY_SECONDS:
            save(model, options.out / "model.safetensors")
            saved = time.time()
        if ended:
            return


class Encoder:
    def __init__(self, folder: Path = tokenizer.MODEL):
        self.tokenizer = tokenizer.load(folder)

    def __call__(self, conversation: list[grammar.Exchange]) -> Row:
        """The chat template's text of a conversation; only the replies and their ends are to be learned."""
        line_end = self.plain("\n")
        ids, learned = [tokenizer.BOS], [False]
        for exchange in conversation:
            asked, answered = self.plain(grammar.turn(exchange.prompt)), self.plain(exchange.reply) + [tokenizer.END_OF_TURN]
            if len(ids) + len(asked) + len(answered) > LONGEST_ROW and len(ids) > 1:
                break
            ids += asked + answered + line_end
            learned += [False] * len(asked) + [True] * len(answered) + [False] * len(line_end)
        targets = [following if learn else IGNORED for following, learn in zip(ids[1:], learned[1:])]
        return ids[:-1], targets

    def plain(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids


def weight(text: str) -> tuple[str, float]:
    task, _, number = text.partition("=")
    if task not in grammar.FRESH:
        raise argparse.ArgumentTypeError(f"{task!r} is no task: write one of {', '.join(grammar.FRESH)}")
    value = float(number)
    if not 0.0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{number}: a weight is not negative")
    return task, value


def share(text: str) -> float:
    value = float(text)
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"{text}: a share is from 0 to 1")
    return value


def batches(
    talks: Iterator[list[grammar.Exchange]], encode: Encoder, batch_tokens: int, rng: random.Random
) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of about the same length together, so that little is padding."""
    while True:
        pool = sorted((encode(next(talks)) for _ in range(POOL_CONVERSATIONS)), key=lambda row: len(row[0]))
        groups, group = [], []
        for row in pool:
            if (len(group) + 1) * len(row[0]) > batch_tokens and group:
                groups.append(group)
                group = []
            group.append(row)
        rng.shuffle(groups)
        yield from map(pad, groups)


def pad(rows: list[Row]) -> tuple[Tensor, Tensor]:
    time_steps = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([ids + [tokenizer.PAD] * (time_steps - len(ids)) for ids, _ in rows])
    targets = torch.tensor([targets + [IGNORED] * (time_steps - len(targets)) for _, targets in rows])
    return ids, targets


def make_optimizer(model: RecurrentGemma) -> torch.optim.AdamW:
    """Weight decay on the matrices alone."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)


def set_rate(optimizer: torch.optim.Optimizer, peak: float, step: int, progress: float) -> None:
    falling = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    decayed = peak * (FINAL_RATE_SHARE + (1 - FINAL_RATE_SHARE) * falling)
    for group in optimizer.param_groups:
        group["lr"] = decayed * min(1.0, (step + 1) / WARM_UP_STEPS)


def train_step(
    model: RecurrentGemma, optimizer: torch.optim.Optimizer, ids: Tensor, targets: Tensor, in_bfloat16: bool = False
) -> float:
    wanted = targets != IGNORED
    with torch.autocast("cpu", torch.bfloat16, enabled=in_bfloat16):
        logits = model(ids, wanted)
    loss = functional.cross_entropy(logits.float(), targets[wanted])
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def check_batch(talks: list[list[grammar.Exchange]], encode: Encoder) -> tuple[Tensor, Tensor]:
    """Held-out conversations; only the last reply of each counts."""
    rows = []
    for talk in talks:
        ids, targets = encode(talk)
        earlier = len(encode(talk[:-1])[0]) if len(talk) > 1 else 0
        rows.append((ids, [IGNORED] * earlier + targets[earlier:]))
    return pad(rows)


@torch.no_grad()
def exact_share(model: RecurrentGemma, ids: Tensor, targets: Tensor) -> float:
    """How many rows greedy decoding would answer exactly: those where every next token is the likeliest."""
    wanted = targets != IGNORED
    wrong = torch.zeros_like(wanted)
    wrong[wanted] = model(ids, wanted).argmax(-1) != targets[wanted]
    return 1.0 - wrong.any(-1).float().mean().item()


def save(model: RecurrentGemma, path: Path) -> None:
    half = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    save_file(half, path, metadata={"format": "pt"})


def generation_defaults() -> dict:
    return {
        "bos_token_id": tokenizer.BOS,
        "do_sample": False,
        "eos_token_id": [tokenizer.EOS, tokenizer.END_OF_TURN],
        "max_new_tokens": 128,
        "pad_token_id": tokenizer.PAD,
    }


def write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
