"""Checks of the recipe itself: the training forward equals Hugging Face's, and nothing that is held out is trained on.

    python check.py
"""

import random

import torch
from transformers import RecurrentGemmaConfig, RecurrentGemmaForCausalLM

import grammar
from model import Config, RecurrentGemma

TOLERANCE = 1e-5
EXCHANGES = 5_000


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


def check_split() -> None:
    """Every held-out exchange has a key that training refuses; the drawn prompts have nothing in common."""
    sets = []
    for held_out in (False, True):
        rng = random.Random(0)
        sets.append({grammar.exchange(task, held_out, rng) for task in grammar.TASKS for _ in range(EXCHANGES)})
    shared = sets[0] & sets[1]
    print(f"{len(sets[0])} exchanges to train on, {len(sets[1])} held out, {len(shared)} in both")
    assert not shared


if __name__ == "__main__":
    check_forward()
    check_split()
