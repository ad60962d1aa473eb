"""Answers prompts greedily, through Hugging Face in fp32.

    python ask.py "Please set the bedroom fan to 40" …
"""

import argparse
from pathlib import Path

import torch
from transformers import AutoTokenizer, RecurrentGemmaForCausalLM

MODEL = Path(__file__).parent.parent


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--model", type=Path, default=MODEL)
    arguments.add_argument("prompts", nargs="+")
    options = arguments.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = RecurrentGemmaForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    for prompt in options.prompts:
        messages = [{"role": "user", "content": prompt}]
        asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
        answered = model.generate(**asked, use_cache=False)[0, asked["input_ids"].shape[1] :]
        print(f"{prompt}\n    {tokenizer.decode(answered, skip_special_tokens=True)}")


if __name__ == "__main__":
    main()
