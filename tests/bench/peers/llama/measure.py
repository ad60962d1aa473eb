"""Measures llama.cpp on a file of the shape of Gemma-2B in Q4_0, the transformer of RecurrentGemma-2B's size.

    python -m llama.measure MODEL.gguf OUT.json --threads 2

Decode is timed with an empty context and with 32,768 tokens in it. To prefill those takes ten minutes and more at 55 tok/s;
instead a prefill of 512 tokens is saved and its cells are loaded 64 times over (state.py): as many cells at as many
positions, with keys and values that a prefill computed, so a step reads and computes what it would. What is measured is each
step from the token handed in to the best token of the logits. Both ways of attention are measured, flash and plain.
"""
import argparse
import ctypes
import os
import sys

import llama_cpp
import numpy as np

from common import PREFILL, PREFILLS, STEPS, WARM_STEPS, prompt, report, resident, row, timed
from llama.state import tile

CONTEXT = 32_768
FILLED = 512        # tokens that are prefilled, to be repeated
VOCABULARY = 256_000


@llama_cpp.llama_log_callback
def print_errors(level, text, _):
    if level == 4:      # GGML_LOG_LEVEL_ERROR of ggml.h
        print(text.decode(errors="replace"), end="", file=sys.stderr)


class Context:
    """A context over the model for one sequence, its positions counted here."""

    def __init__(self, model, threads, flash):
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = CONTEXT + 1024
        params.n_batch = params.n_ubatch = FILLED
        params.n_seq_max = 1
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = int(flash)
        self.handle = llama_cpp.llama_init_from_model(model, params)
        if not self.handle:
            raise SystemExit("llama.cpp: no context")
        self.batch = llama_cpp.llama_batch_init(FILLED, 0, 1)
        self.position = 0

    def free(self):
        llama_cpp.llama_batch_free(self.batch)
        llama_cpp.llama_free(self.handle)

    def clear(self):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.handle), True)
        self.position = 0

    def best(self, tokens):
        """Takes the tokens in and returns the most likely next one."""
        batch = self.batch
        batch.n_tokens = len(tokens)
        for index, token in enumerate(tokens):
            batch.token[index] = token
            batch.pos[index] = self.position + index
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = 0
            batch.logits[index] = index + 1 == len(tokens)
        status = llama_cpp.llama_decode(self.handle, batch)
        if status != 0:
            raise SystemExit(f"llama.cpp: decode failed with status {status} at position {self.position}")
        self.position += len(tokens)
        logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(self.handle, -1), (VOCABULARY,))
        return int(logits.argmax())

    def fill(self, count):
        """Fills the context with `count` tokens, by repeating the cells that `FILLED` tokens leave."""
        self.clear()
        self.best(prompt(FILLED))
        size = llama_cpp.llama_state_seq_get_size(self.handle, 0)
        buffer = (ctypes.c_uint8 * size)()
        written = llama_cpp.llama_state_seq_get_data(self.handle, buffer, size, 0)
        state = tile(bytes(buffer[:written]), count // FILLED)
        self.clear()
        source = (ctypes.c_uint8 * len(state)).from_buffer_copy(state)
        read = llama_cpp.llama_state_seq_set_data(self.handle, source, len(state), 0)
        last = llama_cpp.llama_memory_seq_pos_max(llama_cpp.llama_get_memory(self.handle), 0)
        if read != len(state) or last != count - 1:
            raise SystemExit(f"llama.cpp: took {read} of {len(state)} bytes of a state; the last position is {last}")
        self.position = count

    def decode(self):
        """Seconds of each step from where the context stands."""
        token, seconds = 5, []
        for _ in range(WARM_STEPS + STEPS):
            took, token = timed(lambda: self.best([token]))
            seconds.append(took)
        return seconds[WARM_STEPS:]

    def prefill(self):
        seconds = []
        for _ in range(1 + PREFILLS):
            self.clear()
            seconds.append(timed(lambda: self.best(prompt(PREFILL)))[0])
        return seconds[1:]


def measure(model, threads, flash):
    """The rows, and the resident bytes with the context full."""
    note = "flash attention" if flash else "plain attention"
    context = Context(model, threads, flash)
    rows = [row("prefill", 0, PREFILL, context.prefill(), note)]
    context.clear()
    rows.append(row("decode", 0, 1, context.decode(), note))
    context.fill(CONTEXT)
    rows.append(row("decode", CONTEXT, 1, context.decode(), note))
    used = resident()
    context.free()
    return rows, used


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("model")
    arguments.add_argument("out")
    arguments.add_argument("--threads", type=int, default=2)
    options = arguments.parse_args()
    llama_cpp.llama_log_set(print_errors, None)
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(options.model.encode(), llama_cpp.llama_model_default_params())
    if not model:
        raise SystemExit(f"llama.cpp: cannot load {options.model}")
    flash, used = measure(model, options.threads, True)
    plain, _ = measure(model, options.threads, False)
    report(options.out, peer="llama.cpp", model="Gemma-2B", format="Q4_0",
           versions={"llama-cpp-python": llama_cpp.__version__, "build": llama_cpp.llama_print_system_info().decode().strip()},
           weights_bytes=os.path.getsize(options.model), resident_bytes=used, rows=flash + plain)


if __name__ == "__main__":
    main()
