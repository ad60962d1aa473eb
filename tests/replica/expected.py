#!/usr/bin/env python3
"""Writes expected.json: what Hugging Face's tokenizers makes of 500 texts and 200 streams of tokens.

    python3 -m venv .venv && .venv/bin/pip install -r tests/replica/requirements.txt
    .venv/bin/python tests/replica/expected.py .cache/gemma/tokenizer.json

The tokenizer is Gemma's, as tests/run.sh fetches it; <start_of_turn> and <end_of_turn> are added as the instruction-tuned
repositories have them. The same seed gives the same file.
"""

import json
import random
import sys
from pathlib import Path

from tokenizers import AddedToken, Tokenizer

TEXTS = 500
STREAMS = 200

# One sentence or word list for each script that Unicode's common languages use.
SCRIPTS = [
    "The quick brown fox jumps over the lazy dog.", "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.",
    "Voix ambiguë d'un cœur qui préfère les jattes de kiwis.", "Příliš žluťoučký kůň úpěl ďábelské ódy.",
    "Zażółć gęślą jaźń", "Pijamalı hasta yağız şoföre çabucak güvendi.", "Tôi có thể ăn thủy tinh mà không hại gì.",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.", "Жебракують філософи при ґанку церкви в Гадячі.",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.", "Բել դղյակի ձախ ժամն օֆ ազգությանը ցպահանջ չճշտած", "ევროპის ქვეყნებში სხვადასხვა ენაა",
    "דג סקרן שט בים מאוכזב ולפתע מצא חברה", "نص حكيم له سر قاطع وذو شأن عظيم", "ایک ٹیلے پر بیٹھا بندر", "بر آنچه گذشت آن پرده",
    "ܐܒܓܕܗܘܙܚܛ", "ދިވެހި ބަސް", "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा", "বাংলা ভাষা একটি ইন্দো-আর্য ভাষা", "ਪੰਜਾਬੀ ਭਾਸ਼ਾ",
    "ગુજરાતી ભાષા", "ଓଡ଼ିଆ ଭାଷା", "தமிழ் மொழி மிகப் பழமையானது", "తెలుగు భాష", "ಕನ್ನಡ ಭಾಷೆ", "മലയാളം ഭാഷ", "සිංහල භාෂාව",
    "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า", "ພາສາລາວ", "བོད་སྐད་", "မြန်မာဘာသာ", "ភាសាខ្មែរ", "አማርኛ ቋንቋ ነው", "ⵜⴰⵎⴰⵣⵉⵖⵜ", "ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ", "ᐃᓄᒃᑎᑐᑦ",
    "ᠮᠣᠩᠭᠣᠯ ᠬᠡᠯᠡ", "いろはにほへと ちりぬるを", "色は匂へど散りぬるを、我が世誰ぞ常ならむ。", "カタカナ ｶﾀｶﾅ ＡＢＣ１２３", "天地玄黃宇宙洪荒日月盈昃辰宿列張", "简体中文测试：你好，世界！",
    "다람쥐 헌 쳇바퀴에 타고파", "ㄅㄆㄇㄈ", "ꆈꌠꉙ", "𐌰𐌱𐌲𐌳", "𒀀𒁀𒂀", "𓀀𓁐𓃰", "𝕳𝖊𝖑𝖑𝖔 𝓦𝓸𝓻𝓵𝓭", "ﬁ ﬂ ﬀ ﷽", "Ω≈ç√∫˜µ≤≥÷ ∀x∈ℝ: ⌈x⌉ = −⌊−x⌋",
]
EMOJI = ["😀", "👩‍👩‍👧‍👦", "👍🏽", "🏳️‍🌈", "🇩🇪🇯🇵", "1️⃣", "❤️‍🔥", "🧑🏿‍🚀", "🫠", "🦀🦀🦀", "☺︎ ☺️", "\U0001fae8", "🕴🏻‍♂️"]
CODE = [
    "fn main() {\n\tprintln!(\"{}\", 1 << 3);\n}\n", "def f(x):\n    return [y**2 for y in x if y % 2]\n", "for (;;) {\r\n\t\ti++;\r\n}",
    "SELECT * FROM t WHERE a='b''c' -- x", "<div class=\"a\">&nbsp;&lt;</div>", "{\"a\": [1, 2.5e-3, null], \"b\": \"\\u00e9\\n\"}",
    "#!/bin/sh\nset -eu\nfor f in *; do echo \"$f\"; done\n", "\\frac{\\partial f}{\\partial x} = \\sum_{i=0}^{n} a_i", "a = b /* c */ ; // d",
    "0x1F + 0b101 - 1_000_000 == 3.14159e+00", "https://example.org/a%20b?q=1&r=ü#top", "C:\\Users\\näme\\file.txt", "2026-12-01T02:54:01.123Z",
    "                    deep", "\t\t\t\tdeeper", "x" * 120, "ab" * 60, "-" * 100, "=" * 33 + "\n" * 7, "\n\n \n  \n\t\n", "1234567890" * 8,
]
CONTROL = [chr(c) for c in range(32)] + ["\x7f", "\x80", "\x9f", "\u00a0", "\u00ad", "\u200b", "\u200d", "\u200e", "\u202e", "\u2028",
    "\u2029", "\u2060", "\ufeff", "\ufffd", "\ufffe", "\uffff", "\ue000", "\U000f0000", "\U0010ffff", "▁", "▁▁", "a▁b", "\u0301", "e\u0301", "é"]
# Of these, the first four and the turns' are control tokens; the rest are pieces of the vocabulary.
TOKENS = ["<bos>", "<eos>", "<pad>", "<unk>", "<start_of_turn>", "<end_of_turn>", "<mask>", "<2mass>", "[@BOS@]", "<unused0>", "<unused98>",
    "<0x41>", "<0xE2>", "<start_of_image>", "<table>", "<h1>", "</s>", "<|im_start|>", "<start_of_turn", "end_of_turn>", "< bos>", "<BOS>"]


def texts(rng):
    """Every sample alone, then mixtures."""
    alone = [""] + SCRIPTS + EMOJI + CODE + CONTROL + TOKENS
    alone += [f"x{token}y" for token in TOKENS] + [f" {c} " for c in CONTROL] + [" " * n for n in range(1, 34)]
    alone += ["<start_of_turn>user\nhello<end_of_turn>\n<start_of_turn>model\n", "x<end_of_turn>\n<start_of_turn>model\nok<end_of_turn>\n"]
    found = list(dict.fromkeys(alone))
    kinds = [SCRIPTS, EMOJI, CODE, CONTROL, TOKENS]
    while len(found) < TEXTS:
        parts = []
        for _ in range(rng.randint(2, 6)):
            kind = rng.random()
            if kind < 0.75:
                part = rng.choice(rng.choice(kinds))
                cut = rng.randint(0, len(part))
                parts.append(part[:cut] if rng.random() < 0.3 else part[:90])
            else:
                # Any characters at all, surrogates left out.
                top = rng.choice([0x7F, 0x7FF, 0xFFFF, 0x10FFFF])
                some = (rng.randint(0, top) for _ in range(rng.randint(1, 12)))
                parts.append("".join(chr(c) for c in some if not 0xD800 <= c <= 0xDFFF))
        text = rng.choice(["", " ", "\n", "\t", "  "]).join(parts)
        if text not in found:
            found.append(text)
    return found[:TEXTS]


def streams(rng, tokenizer):
    """Random tokens, with characters that are spelled in bytes, and bytes that are no character, alone between others.

    A run of bytes that is right in parts is left out: Hugging Face replaces all of it, a stream only what is wrong.
    """
    byte = {b: tokenizer.token_to_id(f"<0x{b:02X}>") for b in range(256)}
    size = tokenizer.get_vocab_size()
    other = sorted(i for i in range(size) if i not in byte.values())
    for _ in range(STREAMS):
        ids = []
        spelled = False
        for _ in range(rng.randint(1, 40)):
            kind = rng.random()
            if kind < 0.2 and not spelled:
                text = rng.choice(rng.choice([SCRIPTS, EMOJI]))[: rng.randint(1, 3)]
                ids += [byte[b] if byte[b] is not None else tokenizer.token_to_id(chr(b)) for b in text.encode()]
                spelled = True
            elif kind < 0.3 and not spelled:
                ids += [byte[rng.randint(0x80, 0xFF)]] * rng.randint(1, 3)
                spelled = True
            else:
                ids.append(rng.choice(other) if kind < 0.9 else rng.choice([0, 1, 2, 3, 106, 107, 108, 226, 235248]))
                # A token that is skipped does not end a run of bytes.
                spelled = spelled and ids[-1] in (0, 1, 2, 3, 106, 107)
        yield ids


def main():
    tokenizer = Tokenizer.from_file(sys.argv[1])
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in ("<start_of_turn>", "<end_of_turn>")])
    rng = random.Random(26)
    lines = []
    for text in texts(rng):
        # What is a control token where the text may hold them, and what is a text like any other.
        tokenizer.encode_special_tokens = False
        control = tokenizer.encode(text, add_special_tokens=False).ids
        tokenizer.encode_special_tokens = True
        plain = tokenizer.encode(text, add_special_tokens=False).ids
        lines.append({"text": text, "ids": control} | ({"plain": plain} if plain != control else {}))
    shown = [{"ids": ids, "text": tokenizer.decode(ids, skip_special_tokens=True)} for ids in streams(rng, tokenizer)]
    rows = lambda values: ",\n".join(json.dumps(value, separators=(",", ":")) for value in values)
    out = Path(__file__).with_name("expected.json")
    out.write_text(f'{{"texts": [\n{rows(lines)}\n], "streams": [\n{rows(shown)}\n]}}\n')
    print(f"{out}: {len(lines)} texts, {len(shown)} streams, {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
