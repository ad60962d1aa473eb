"""Checks of the training, which need torch: the forward pass equals Hugging Face's, and twenty steps learn something.

    python check.py
"""

import random

import torch
from transformers import RecurrentGemmaConfig, RecurrentGemmaForCausalLM

import grammar
import house as houses
import terms
import train
from model import Config, RecurrentGemma

TOLERANCE = 1e-5
STEPS = 20
STEP_TOKENS = 2048
LEARNED = 0.75
"""The share of the first steps' loss that the last ones may have at most."""


def check_forward() -> None:
    """Random weights of every kind, rows of more than two windows, fp32."""
    torch.manual_seed(0)
    config = Config()
    ours = RecurrentGemma(config).eval()
    for parameter in ours.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    reference = RecurrentGemmaForCausalLM(RecurrentGemmaConfig(**config.to_hugging_face())).float().eval()
    missing, unexpected = reference.load_state_dict(ours.state_dict(), strict=False)
    assert missing == ["lm_head.weight"] and not unexpected, (missing, unexpected)
    reference.tie_weights()

    ids = torch.randint(config.vocab_size, (3, 300))
    with torch.no_grad():
        expected = reference(ids, use_cache=False).logits.flatten(0, 1).log_softmax(-1)
        logits = ours(ids, torch.ones_like(ids, dtype=torch.bool)).log_softmax(-1)
    worst = (expected - logits).abs().max().item()
    print(f"largest difference in log-probability from Hugging Face: {worst:.1e}")
    assert worst < TOLERANCE


def check_steps() -> None:
    """From random weights, with the schedule of a short training."""
    torch.manual_seed(0)
    model = RecurrentGemma(Config())
    optimizer = train.make_optimizer(model)
    rng, house, known = random.Random(0), houses.load(), terms.load()
    talks = iter(lambda: grammar.conversation(house, known, rng), None)
    rows = train.batches(talks, train.Encoder(), STEP_TOKENS, rng)
    losses = []
    for step, (ids, targets) in zip(range(STEPS), rows):
        train.set_rate(optimizer, 3e-3, step * train.WARM_UP_STEPS // STEPS, 0.0)
        losses.append(train.train_step(model, optimizer, ids, targets))
    first, last = sum(losses[:3]) / 3, sum(losses[-3:]) / 3
    print(f"loss of {STEPS} steps: from {first:.2f} to {last:.2f}")
    assert last < LEARNED * first, losses


if __name__ == "__main__":
    check_forward()
    check_steps()
