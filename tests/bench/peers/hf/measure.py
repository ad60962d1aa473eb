"""Measures Hugging Face's RecurrentGemma on the 2B shape: bf16, random weights, on the CPU.

    python -m hf.measure OUT.json --threads 2

The loop carries all of the state from token to token. The model keeps the recurrent state in itself and sets it up only
when it makes the attention's cache too, which it then does not return: the loop makes both and hands the cache in. That this
is right is checked first, on a small model in float32: its logits token by token must be those of a pass over all tokens.
"""
import argparse

import torch
import transformers
from transformers import DynamicCache, RecurrentGemmaConfig, RecurrentGemmaForCausalLM

from common import PREFILL, PREFILLS, STEPS, WARM_STEPS, prompt, report, resident, row, timed

POSITION = 64
SHAPE = dict(num_hidden_layers=26, vocab_size=256_000, hidden_size=2560, intermediate_size=15_360, num_attention_heads=10,
             num_key_value_heads=1, attention_window_size=2048)
SMALL = SHAPE | dict(num_hidden_layers=3, vocab_size=512, hidden_size=64, intermediate_size=128, num_attention_heads=4)


def random_model(shape, dtype, bound):
    """A model of the shape, every parameter uniform in ±bound, in seconds where the library's own takes minutes."""
    with torch.device("meta"):
        model = RecurrentGemmaForCausalLM(RecurrentGemmaConfig(**shape))
    model = model.to(dtype).to_empty(device="cpu")
    model.tie_weights()
    generator = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        parameter.data.uniform_(-bound, bound, generator=generator)
    for module in model.modules():                      # buffers that are no parameters
        if hasattr(module, "inv_freq"):
            frequencies, _ = module.compute_default_rope_parameters(model.config)
            module.inv_freq = module.original_inv_freq = frequencies
        if hasattr(module, "normalizer"):
            module.normalizer = torch.tensor(model.config.hidden_size**0.5, dtype=torch.bfloat16)
    return model.eval()


class Session:
    """A model with an empty state, which `step` carries on."""

    def __init__(self, model):
        self.model = model
        self.cache = DynamicCache(config=model.config)
        model._setup_cache(model.config, 1, model.device, model.dtype)
        self.position = 0

    @torch.inference_mode()
    def step(self, tokens):
        """The logits after the last of the tokens, (vocabulary,)."""
        positions = torch.arange(self.position, self.position + len(tokens))[None]
        self.position += len(tokens)
        result = self.model(input_ids=torch.tensor([tokens]), position_ids=positions, past_key_values=self.cache,
                            use_cache=True, logits_to_keep=1)
        return result.logits[0, -1]

    def best(self, tokens):
        return int(self.step(tokens).argmax())


def check_loop():
    """Fails when stepping a small model gives other logits than one pass over all of its tokens.

    Its weights are large, so that a recurrent state, a cache or a position that is lost shows in the logits.
    """
    model = random_model(SMALL, torch.float32, 0.3)
    tokens = [token % SMALL["vocab_size"] for token in prompt(48)]
    with torch.inference_mode():
        whole = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]
    session = Session(model)
    stepped = [session.step(tokens[:16])] + [session.step([token]) for token in tokens[16:]]
    difference = (torch.stack(stepped) - whole[15:]).abs().max().item()
    spread = whole.std().item()
    if not difference <= 1e-3 * spread:
        raise SystemExit(f"the loop does not carry the state: logits differ by {difference} (their spread is {spread})")


def decode(model):
    session = Session(model)
    token = session.best(prompt(POSITION - STEPS // 2 - WARM_STEPS))
    seconds = []
    for _ in range(WARM_STEPS + STEPS):
        took, token = timed(lambda: session.best([token]))
        seconds.append(took)
    return seconds[WARM_STEPS:]


def prefill(model):
    # The first one is for what is set up once.
    return [timed(lambda: Session(model).best(prompt(PREFILL)))[0] for _ in range(1 + PREFILLS)][1:]


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("out")
    arguments.add_argument("--threads", type=int, default=2)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    check_loop()
    model = random_model(SHAPE, torch.bfloat16, 0.03)
    rows = [row("decode", POSITION, 1, decode(model)), row("prefill", 0, PREFILL, prefill(model))]
    weights = sum(parameter.nbytes for parameter in model.parameters())
    report(options.out, peer="Hugging Face transformers", model="RecurrentGemma-2B", format="bf16",
           versions={"transformers": transformers.__version__, "torch": torch.__version__},
           weights_bytes=weights, resident_bytes=resident(), rows=rows)


if __name__ == "__main__":
    main()
