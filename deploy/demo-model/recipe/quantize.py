"""Simulates a weight-only export: symmetric rounding to nearest, one scale for each block of a row."""

import torch
from torch import Tensor, nn


def round_weights(model: nn.Module, bits: int, block: int) -> None:
    """Rounds linear layers and the tied embedding in place; gates, convolutions, norms and biases stay."""
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            module.weight.data = rounded(module.weight.data, bits, block)


def rounded(weight: Tensor, bits: int, block: int) -> Tensor:
    """The entry of largest magnitude in a block becomes exactly the lowest level."""
    blocks = weight.reshape(-1, block)
    largest = blocks.gather(1, blocks.abs().argmax(1, keepdim=True))
    lowest_level = -(2 ** (bits - 1))
    scale = largest / lowest_level
    levels = torch.round(blocks / torch.where(scale == 0, 1.0, scale)).clamp(lowest_level, -lowest_level - 1)
    return (levels * scale).reshape(weight.shape)
