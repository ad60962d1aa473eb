"""Trains the demo model and writes its weights in F16.

    python train.py [--tokens 6000000] [--out ..]
    python train.py --start model.safetensors --peak-rate 1e-3 --minutes 14       go on from weights, by the clock

Every 200 steps the exact replies on held-out exchanges are counted and the weights written, so that nothing is lost.
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
import tokenizer
from model import Config, RecurrentGemma

POOL_CONVERSATIONS = 3_000
FINAL_RATE_SHARE = 0.01
WARM_UP_STEPS = 150
CHECK_EVERY_STEPS = 200
CHECK_EXCHANGES = 150
IGNORED = -100

Row = tuple[list[int], list[int]]
"""Token ids, and for each the id that follows where it belongs to a reply, else `IGNORED`."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--tokens", type=int, default=6_000_000, help="how many to train on, padding included")
    arguments.add_argument("--minutes", type=float, default=math.inf, help="end then at the latest, the rate decayed in step")
    arguments.add_argument("--start", type=Path, help="weights to go on from")
    arguments.add_argument("--peak-rate", type=float, default=3e-3)
    arguments.add_argument("--batch-tokens", type=int, default=8 * 512)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--out", type=Path, default=tokenizer.MODEL)
    options = arguments.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    config = Config()
    write_json(options.out / "config.json", config.to_hugging_face())
    write_json(options.out / "generation_config.json", generation_defaults())

    model = RecurrentGemma(config)
    if options.start:
        model.load_state_dict(load_file(options.start))
    optimizer = make_optimizer(model)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    encode = Encoder()
    held_out = {task: check_batch(task, encode) for task in grammar.TASKS}
    started, seen, step = time.time(), 0, 0
    for ids, targets in batches(encode, options.batch_tokens, random.Random(options.seed)):
        elapsed = time.time() - started
        progress = max(seen / options.tokens, elapsed / 60 / options.minutes)
        set_rate(optimizer, options.peak_rate, step, progress)
        loss = train_step(model, optimizer, ids, targets)
        seen, step = seen + ids.numel(), step + 1
        ended = progress >= 1.0
        if step % CHECK_EVERY_STEPS == 0 or ended:
            exact = "  ".join(f"{task} {exact_share(model, *batch):.1%}" for task, batch in held_out.items())
            pace = f"{elapsed / 60:.1f} min, {seen / elapsed:,.0f} tokens/s"
            print(f"step {step}  {seen:,} tokens  loss {loss:.4f}  exact: {exact}  {pace}", flush=True)
            save(model, options.out / "model.safetensors")
        if ended:
            return


class Encoder:
    def __init__(self):
        self.tokenizer = tokenizer.load()

    def __call__(self, conversation: list[grammar.Exchange]) -> Row:
        """The chat template's text of a conversation; only the replies and their ends are to be learned."""
        line_end = self.plain("\n")
        ids, learned = [tokenizer.BOS], [False]
        for prompt, reply in conversation:
            asked, answered = self.plain(tokenizer.turn(prompt)), self.plain(reply) + [tokenizer.END_OF_TURN]
            ids += asked + answered + line_end
            learned += [False] * len(asked) + [True] * len(answered) + [False] * len(line_end)
        targets = [following if learn else IGNORED for following, learn in zip(ids[1:], learned[1:])]
        return ids[:-1], targets

    def plain(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids


def batches(encode: Encoder, batch_tokens: int, rng: random.Random) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of about the same length together, so that little is padding."""
    while True:
        pool = sorted((encode(grammar.conversation(rng)) for _ in range(POOL_CONVERSATIONS)), key=lambda row: len(row[0]))
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


def train_step(model: RecurrentGemma, optimizer: torch.optim.Optimizer, ids: Tensor, targets: Tensor) -> float:
    wanted = targets != IGNORED
    loss = functional.cross_entropy(model(ids, wanted), targets[wanted])
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def check_batch(task: str, encode: Encoder) -> tuple[Tensor, Tensor]:
    rng = random.Random(f"check {task}")
    return pad([encode([grammar.exchange(task, True, rng)]) for _ in range(CHECK_EXCHANGES)])


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
