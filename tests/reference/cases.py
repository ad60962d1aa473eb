"""The cases: what each checkpoint's config.json says, how its weights are stored, and how long its sequence is."""
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    name: str
    config: dict
    dtype: str                      # of the stored weights
    length: int                     # tokens of the scored sequence, at least six windows
    shards: int = 1
    float32: tuple = ()             # tensors whose name ends so are stored in float32 whatever `dtype` says
    eos: int | list = 1
    prompt: int = 12
    continuation: int = 24
    seed: int = 0                   # first seed tried


def shape(vocab, hidden, mlp, layers, blocks, heads, kv, lru, window, conv=4, cap=30.0, eps=1e-6, bias=False):
    return {
        "vocab_size": vocab, "hidden_size": hidden, "intermediate_size": mlp, "num_hidden_layers": layers,
        "block_types": [{"r": "recurrent", "a": "attention"}[b] for b in blocks],
        "num_attention_heads": heads, "num_key_value_heads": kv, "lru_width": lru, "attention_window_size": window,
        "conv1d_width": conv, "logits_soft_cap": cap, "rms_norm_eps": eps, "attention_bias": bias,
        "hidden_activation": "gelu_pytorch_tanh", "w_init_variance_scale": 0.01, "attention_dropout": 0.0,
        "architectures": ["RecurrentGemmaForCausalLM"], "model_type": "recurrent_gemma", "use_cache": True,
        "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0,
    }


def spelled4(config, dtype, theta=10000.0, rotary=0.5):
    """As transformers 4 wrote it, `head_dim` and the older leftovers included."""
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    return {
        "_block_types": config["block_types"], "embeddings_scale_by_sqrt_dim": True,
        "final_w_init_variance_scale": 2.0 / config["num_hidden_layers"], "head_dim": hidden // heads,
        **config, "rope_theta": theta, "partial_rotary_factor": rotary, "torch_dtype": dtype,
        "transformers_version": "4.47.0",
    }


def spelled5(config, dtype, theta=10000.0, rotary=0.5, **extra):
    """As transformers 5 writes it."""
    rope = {"rope_theta": theta, "partial_rotary_factor": rotary, "rope_type": "default"}
    return {**config, "rope_parameters": rope, "dtype": dtype, "tie_word_embeddings": True,
            "transformers_version": "5.23.0", **extra}


def without(config, *keys):
    return {k: v for k, v in config.items() if k not in keys}


CASES = [
    # The layout of the published checkpoints in small: (r, r, a) ending mid-pattern, one key/value head.
    Case("rra-mqa", spelled4(shape(128, 64, 192, 5, "rra", 4, 1, 64, 12), "bfloat16"), "bfloat16", 88),
    # Every K is 96 or 192: blocks of 64 or 128 divide some or none of them.
    Case("ra-gqa-k96", spelled5(shape(97, 96, 192, 3, "ra", 6, 2, 192, 8), "bfloat16", theta=500.0),
         "bfloat16", 64),
    # Starts with attention; a bias on q, k, v; rotary embedding on the whole head; everything in float32.
    Case("arr-mha3", spelled5(shape(97, 24, 64, 5, "arr", 3, 3, 24, 8, conv=2, cap=15.0, eps=1e-2, bias=True),
                              "float32", rotary=1.0), "float32", 64),
    # A recurrence wider than the stream, in float16; every K divides by 32; a list of end tokens.
    Case("wide-lru-f16", spelled4(shape(64, 32, 128, 4, "ra", 4, 4, 64, 16, conv=3, bias=True), "float16",
                                  theta=1000.0, rotary=0.25), "float16", 112, eos=[1, 7]),
    # Three shards, bfloat16 beside float32, a recurrence narrower than the stream; every K divides by 32.
    Case("sharded-mixed", spelled5(shape(320, 64, 128, 4, "rra", 4, 2, 32, 12, cap=15.0), "bfloat16"),
         "bfloat16", 80, shards=3, float32=("recurrent_param", "norm.weight")),
    # hidden_size is no multiple of the heads (head_dim is rounded down), intermediate_size is odd (so is its half),
    # no rope setting at all (theta 10000, factor 0.5).
    Case("ragged", without(spelled5(shape(97, 40, 75, 4, "rra", 3, 1, 36, 8, eps=1e-3), "float32"), "rope_parameters"),
         "float32", 64),
    # head_dim is given and heads * head_dim (64) is twice hidden_size; lru_width is absent: it is hidden_size.
    Case("head-dim", without(spelled5(shape(64, 32, 64, 3, "rra", 4, 2, 32, 8), "float32", head_dim=16), "lru_width"),
         "float32", 64),
    # int(head_dim * factor) = 3 is odd: two frequencies, base^0 and base^(-2/3), turn four elements.
    Case("odd-rotary", spelled5(shape(64, 24, 48, 3, "ra", 2, 1, 24, 8), "float32", theta=100.0, rotary=0.25),
         "float32", 64),
]
