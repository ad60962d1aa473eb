"""RecurrentGemma for training: the mathematics and the parameter names of Hugging Face's model, at several times its speed.

Rows are whole conversations that start at position 0, padded at the end: since everything is causal, padding needs no mask.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import wraps

import torch
from torch import Tensor, nn
from torch.nn import functional

RECURRENT, ATTENTION = "recurrent", "attention"


@dataclass(frozen=True)
class Config:
    """The fields of Hugging Face's `config.json` that the forward pass reads."""

    vocab_size: int = 2048
    hidden_size: int = 192
    intermediate_size: int = 1152
    num_hidden_layers: int = 6
    num_attention_heads: int = 4
    num_key_value_heads: int = 1
    head_dim: int = 48
    lru_width: int = 192
    attention_window_size: int = 128
    conv1d_width: int = 4
    block_types: tuple[str, ...] = (RECURRENT, RECURRENT, ATTENTION)
    logits_soft_cap: float = 30.0
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    partial_rotary_factor: float = 0.5

    def block_type(self, layer: int) -> str:
        return self.block_types[layer % len(self.block_types)]

    def to_hugging_face(self) -> dict:
        """`config.json` in the spelling of transformers 4, which transformers 5 reads too."""
        return {
            "architectures": ["RecurrentGemmaForCausalLM"],
            "model_type": "recurrent_gemma",
            **asdict(self),
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": 2,
            "eos_token_id": 1,
            "hidden_activation": "gelu_pytorch_tanh",
            "pad_token_id": 0,
            "tie_word_embeddings": True,
            "torch_dtype": "float16",
            "use_cache": True,
            "w_init_variance_scale": 0.01,
        }


def in_float32(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Out of autocast: where bfloat16 would cost accuracy, or is not even faster."""

    @wraps(method)
    def precise(module: nn.Module, *tensors: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return method(module, *(tensor.float() for tensor in tensors))

    return precise


class Norm(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(config.hidden_size))
        self.eps = config.rms_norm_eps

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, x.shape[-1:], 1.0 + self.weight, self.eps)


class LinearScan(torch.autograd.Function):
    """h[t] = a[t] · h[t-1] + x[t] along the first dimension, h[-1] = 0."""

    @staticmethod
    def forward(context, a: Tensor, x: Tensor) -> Tensor:
        h = x.clone()
        for t in range(1, len(h)):
            h[t].addcmul_(a[t], h[t - 1])
        context.save_for_backward(a, h)
        return h

    @staticmethod
    def backward(context, grad_h: Tensor) -> tuple[Tensor, Tensor]:
        a, h = context.saved_tensors
        grad_x = grad_h.clone()
        for t in range(len(h) - 2, -1, -1):
            grad_x[t].addcmul_(a[t + 1], grad_x[t + 1])
        grad_a = torch.zeros_like(a)
        torch.mul(grad_x[1:], h[:-1], out=grad_a[1:])
        return grad_a, grad_x


class RgLru(nn.Module):
    """The real-gated linear recurrent unit, over [time, batch, width]."""

    def __init__(self, config: Config):
        super().__init__()
        self.heads = config.num_attention_heads
        block = config.lru_width // self.heads
        self.recurrent_param = nn.Parameter(self.initial_decay(config.lru_width))
        self.input_gate_weight = nn.Parameter(torch.randn(self.heads, block, block) * math.sqrt(0.01 / block))
        self.input_gate_bias = nn.Parameter(torch.zeros(self.heads, block))
        self.recurrent_gate_weight = nn.Parameter(torch.randn(self.heads, block, block) * math.sqrt(0.01 / block))
        self.recurrent_gate_bias = nn.Parameter(torch.zeros(self.heads, block))

    @staticmethod
    def initial_decay(width: int) -> Tensor:
        """Such that a fully open gate decays by a factor between 0.9 and 0.999."""
        squared = torch.empty(width).uniform_(0.9**2, 0.999**2)
        return torch.log(torch.expm1(-0.5 * torch.log(squared)))

    def gate(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        by_head = x.reshape(-1, self.heads, weight.shape[-1]).transpose(0, 1)
        return torch.baddbmm(bias[:, None], by_head, weight).transpose(0, 1).reshape(x.shape).sigmoid()

    @in_float32
    def forward(self, x: Tensor) -> Tensor:
        input_gate = self.gate(x, self.input_gate_weight, self.input_gate_bias)
        recurrent_gate = self.gate(x, self.recurrent_gate_weight, self.recurrent_gate_bias)
        log_a = -8.0 * recurrent_gate * functional.softplus(self.recurrent_param)
        scale = torch.sqrt(-torch.expm1(2 * log_a[1:]))
        scale = torch.cat([torch.ones_like(log_a[:1]), scale])
        return LinearScan.apply(log_a.exp(), scale * (x * input_gate))


class RecurrentBlock(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.linear_y = linear(config.hidden_size, config.lru_width)
        self.linear_x = linear(config.hidden_size, config.lru_width)
        self.linear_out = linear(config.lru_width, config.hidden_size, gain=2.0 / config.num_hidden_layers)
        self.conv_1d = nn.Conv1d(config.lru_width, config.lru_width, config.conv1d_width, groups=config.lru_width)
        nn.init.normal_(self.conv_1d.weight, std=math.sqrt(0.01 / config.conv1d_width))
        nn.init.zeros_(self.conv_1d.bias)
        self.rg_lru = RgLru(config)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.gelu(self.linear_y(x), approximate="tanh")
        u = self.rg_lru(self.convolve(self.linear_x(x)))
        return self.linear_out(u * y)

    def convolve(self, x: Tensor) -> Tensor:
        """The causal depthwise convolution as one product per tap, since time is the first dimension."""
        taps = self.conv_1d.weight[:, 0].unbind(-1)
        out = x * taps[-1] + self.conv_1d.bias
        for distance in range(1, len(taps)):
            out = out + functional.pad(x[:-distance] * taps[-1 - distance], (0, 0, 0, 0, distance, 0))
        return out


class AttentionBlock(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        key_width = config.num_key_value_heads * config.head_dim
        self.q_proj = linear(config.hidden_size, config.num_attention_heads * config.head_dim, bias=False)
        self.k_proj = linear(config.hidden_size, key_width, bias=False)
        self.v_proj = linear(config.hidden_size, key_width, bias=False)
        self.o_proj = linear(
            config.num_attention_heads * config.head_dim, config.hidden_size, gain=2.0 / config.num_hidden_layers
        )

    def forward(self, x: Tensor) -> Tensor:
        time, batch, _ = x.shape
        q, k, v = (self.by_head(projection(x)) for projection in (self.q_proj, self.k_proj, self.v_proj))
        return self.o_proj(self.mix(q, k, v).permute(2, 0, 1, 3).reshape(time, batch, -1))

    @in_float32
    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        time = q.shape[2]
        cos, sin = self.angles(time)
        return functional.scaled_dot_product_attention(
            self.rotate(q, cos, sin), self.rotate(k, cos, sin), v, attn_mask=self.window(time), enable_gqa=True
        )

    def by_head(self, x: Tensor) -> Tensor:
        """[time, batch, heads · dim] to [batch, heads, time, dim]."""
        return x.reshape(*x.shape[:2], -1, self.config.head_dim).permute(1, 2, 0, 3)

    def angles(self, time: int) -> tuple[Tensor, Tensor]:
        width = int(self.config.head_dim * self.config.partial_rotary_factor)
        frequencies = 1.0 / self.config.rope_theta ** (torch.arange(0, width, 2) / width)
        angles = torch.outer(torch.arange(time).float(), frequencies).repeat(1, 2)
        return angles.cos(), angles.sin()

    @staticmethod
    def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        turned, kept = x.split((cos.shape[-1], x.shape[-1] - cos.shape[-1]), dim=-1)
        first, second = turned.chunk(2, dim=-1)
        return torch.cat([turned * cos + torch.cat([-second, first], dim=-1) * sin, kept], dim=-1)

    def window(self, time: int) -> Tensor:
        distance = torch.arange(time)[:, None] - torch.arange(time)
        return (distance >= 0) & (distance < self.config.attention_window_size)


class Mlp(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        width = config.intermediate_size // 2
        self.gate_proj = linear(config.hidden_size, width)
        self.up_proj = linear(config.hidden_size, width)
        self.down_proj = linear(width, config.hidden_size, gain=2.0 / config.num_hidden_layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(functional.gelu(self.gate_proj(x), approximate="tanh") * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, config: Config, kind: str):
        super().__init__()
        self.temporal_pre_norm = Norm(config)
        self.temporal_block = {RECURRENT: RecurrentBlock, ATTENTION: AttentionBlock}[kind](config)
        self.channel_pre_norm = Norm(config)
        self.mlp_block = Mlp(config)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.temporal_block(self.temporal_pre_norm(x))
        return x + self.mlp_block(self.channel_pre_norm(x))


class Decoder(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        nn.init.normal_(self.embed_tokens.weight, std=0.05)
        self.layers = nn.ModuleList(Layer(config, config.block_type(index)) for index in range(config.num_hidden_layers))
        self.final_norm = Norm(config)
        self.scale = torch.tensor(math.sqrt(config.hidden_size)).bfloat16().item()

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed_tokens(ids.T) * self.scale
        for layer in self.layers:
            x = layer(x)
        return self.final_norm(x).transpose(0, 1)


class RecurrentGemma(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.model = Decoder(config)
        self.soft_cap = config.logits_soft_cap

    def forward(self, ids: Tensor, wanted: Tensor) -> Tensor:
        """Logits of the positions of `ids` [batch, time] where `wanted` [batch, time] is true."""
        logits = functional.linear(self.model(ids)[wanted], self.model.embed_tokens.weight)
        return self.soft_cap * torch.tanh(logits / self.soft_cap)


def linear(inputs: int, outputs: int, bias: bool = True, gain: float = 1.0) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, bias=bias)
    nn.init.normal_(layer.weight, std=math.sqrt(gain / inputs))
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
