"""Writes a GGUF file of the shape of Gemma-2B: random weights, every matrix in Q4_0, no tokenizer.

    python -m llama.model FILE
"""
import os
import sys

import gguf
import numpy as np

LAYERS, HIDDEN, INNER, HEADS, HEAD, VOCABULARY = 18, 2048, 16_384, 8, 256, 256_000
CONTEXT = 65_536                # longer than the model's own: the length that is measured is past it
BLOCK, BLOCK_BYTES = 32, 18     # Q4_0: a scale in float16, 32 values in 4 bits


def matrix(rng, outputs, inputs):
    """Random blocks, (outputs, bytes of a row): values with a standard deviation near 0.02."""
    blocks = rng.integers(0, 256, (outputs, inputs // BLOCK, BLOCK_BYTES), dtype=np.uint8)
    blocks[..., :2] = np.frombuffer(np.float16(5e-3).tobytes(), np.uint8)
    return blocks.reshape(outputs, -1)


def layer(rng, index):
    """Name and data of every tensor of a layer."""
    name = f"blk.{index}"
    norm = lambda: rng.uniform(0.97, 1.03, HIDDEN).astype(np.float32)
    yield f"{name}.attn_norm.weight", norm()
    yield f"{name}.attn_q.weight", matrix(rng, HEADS * HEAD, HIDDEN)
    yield f"{name}.attn_k.weight", matrix(rng, HEAD, HIDDEN)
    yield f"{name}.attn_v.weight", matrix(rng, HEAD, HIDDEN)
    yield f"{name}.attn_output.weight", matrix(rng, HIDDEN, HEADS * HEAD)
    yield f"{name}.ffn_norm.weight", norm()
    yield f"{name}.ffn_gate.weight", matrix(rng, INNER, HIDDEN)
    yield f"{name}.ffn_up.weight", matrix(rng, INNER, HIDDEN)
    yield f"{name}.ffn_down.weight", matrix(rng, HIDDEN, INNER)


def write(path):
    rng = np.random.default_rng(2)
    writer = gguf.GGUFWriter(path, "gemma")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(1)
    writer.add_key_length(HEAD)
    writer.add_value_length(HEAD)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(VOCABULARY)
    tensors = [("token_embd.weight", matrix(rng, VOCABULARY, HIDDEN)),
               ("output_norm.weight", np.ones(HIDDEN, np.float32))]
    for index in range(LAYERS):
        tensors += layer(rng, index)
    for name, data in tensors:
        writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType.Q4_0 if data.ndim == 2 else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    target = sys.argv[1]
    write(target + ".partial")
    os.rename(target + ".partial", target)
