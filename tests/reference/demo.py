"""Records what Hugging Face computes with the committed weights of the demo model, on the conversations written by hand.

    python demo.py [--out demo-model.safetensors]
"""
import argparse
import json
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoTokenizer

import make

MODEL = Path(__file__).parents[2] / "deploy" / "demo-model"
LENGTH = 800              # tokens: more than six windows
EVERY = 40                # of them, that many tokens apart, the logits are kept


def conversation(tokenizer):
    """The first tokens of all conversations as one, by the chat template."""
    messages = []
    for line in (MODEL / "recipe" / "handwritten.jsonl").read_text().splitlines():
        for prompt, reply in json.loads(line):
            messages += [{"role": "user", "content": prompt}, {"role": "assistant", "content": reply or "Sorry."}]
    return tokenizer.apply_chat_template(messages, return_dict=False)[:LENGTH]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "demo-model.safetensors")
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    tokens = conversation(AutoTokenizer.from_pretrained(MODEL))
    assert len(tokens) == LENGTH, len(tokens)
    kept = torch.arange(EVERY - 1, LENGTH, EVERY)
    logits = make.logits(make.load(MODEL), tokens)[kept].contiguous()
    save_file({"tokens": torch.tensor(tokens), "kept": kept, "logits": logits}, args.out)
    print(f"{args.out}: {len(tokens)} tokens, the logits after {len(kept)} of them, the largest {logits.abs().max():.1f}")


if __name__ == "__main__":
    main()
