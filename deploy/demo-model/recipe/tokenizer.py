"""Trains the Gemma-style tokenizer and writes it, with its chat template, beside the weights.

    python tokenizer.py [--out ..]

Byte-pair encoding with byte fallback; spaces are written as the letter "▁"; every digit is a token of its own, so
that numbers are copied digit by digit. `words.txt` adds plain words that the grammar does not use, for those who train it further.
"""

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import grammar
import house
import terms

RECIPE = Path(__file__).parent
MODEL = RECIPE.parent
VOCABULARY = 2048
SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
PAD, EOS, BOS, END_OF_TURN = (SPECIAL.index(token) for token in ("<pad>", "<eos>", "<bos>", "<end_of_turn>"))
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
PRINTABLE = [chr(code) for code in range(0x21, 0x7F)] + ["\n", "▁", "°", "µ"]
CORPUS_CONVERSATIONS = 25_000

CHAT_TEMPLATE = """\
{%- if not messages -%}
    {{- raise_exception('A conversation needs at least one message') -}}
{%- elif messages[0]['role'] == 'system' -%}
    {{- raise_exception('System role not supported') -}}
{%- endif -%}
{{- bos_token -}}
{%- for message in messages -%}
    {%- set from_user = message['role'] == 'user' -%}
    {%- if from_user != (loop.index0 % 2 == 0) -%}
        {{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') -}}
    {%- endif -%}
    {%- set speaker = 'model' if message['role'] == 'assistant' else message['role'] -%}
    {{- '<start_of_turn>' + speaker + '\\n' + message['content'] | trim + '<end_of_turn>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<start_of_turn>model\\n' -}}
{%- endif -%}
"""


def load(folder: Path = MODEL) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--out", type=Path, default=MODEL)
    out = arguments.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    learned = learn()
    tokenizer = assemble(learned)
    tokenizer.save(str(out / "tokenizer.json"))
    write_json(out / "tokenizer_config.json", settings())
    write_json(out / "special_tokens_map.json", named_tokens())
    print(f"{tokenizer.get_vocab_size()} tokens, {len(learned['merges'])} merges")


def learn() -> dict:
    """The merges and letters of a plain byte-pair encoding trained on the grammar."""
    trained = Tokenizer(models.BPE())
    trained.normalizer, trained.pre_tokenizer = normalizer(), pre_tokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL) - len(BYTES), initial_alphabet=PRINTABLE, limit_alphabet=len(PRINTABLE), show_progress=False
    )
    trained.train_from_iterator(corpus(), trainer)
    return json.loads(trained.to_str())["model"]


def corpus() -> Iterator[str]:
    rng = random.Random("tokenizer")
    words = (RECIPE / "words.txt").read_text().split()
    home, known = house.load(), terms.load()
    for _ in range(CORPUS_CONVERSATIONS):
        for exchange in grammar.conversation(home, known, rng):
            yield f"user\n{exchange.prompt}\nmodel\n{exchange.reply}"
    for _ in range(100):
        yield " " + " ".join(words)
    for _ in range(30):
        yield " " + " ".join(words).title()


def assemble(learned: dict) -> Tokenizer:
    letters_and_pieces = sorted(learned["vocab"], key=learned["vocab"].get)
    vocabulary = {token: index for index, token in enumerate(SPECIAL + BYTES + letters_and_pieces)}
    merges = [tuple(merge) for merge in learned["merges"]]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer(), pre_tokenizer()
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", BOS)]
    )
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL])
    return tokenizer


def normalizer() -> normalizers.Normalizer:
    return normalizers.Replace(" ", "▁")


def pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    """Words with the space before them, single digits, single line ends, runs of punctuation."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("▁", "merged_with_next"),
            pre_tokenizers.Split("\n", "isolated"),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Punctuation("contiguous"),
        ]
    )


def settings() -> dict:
    return {
        "add_bos_token": True,
        "add_eos_token": False,
        "added_tokens_decoder": {
            str(index): {"content": token, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
            for index, token in enumerate(SPECIAL)
        },
        **named_tokens(),
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1_000_000_000,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }


def named_tokens() -> dict:
    return {
        "additional_special_tokens": ["<start_of_turn>", "<end_of_turn>"],
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
    }


def write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
