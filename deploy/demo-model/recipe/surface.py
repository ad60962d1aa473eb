"""How people really type: casing, filler words left to the phrases, and the odd slip of a finger."""

import random
import re


def first_letter(text: str) -> str:
    return text[:1].upper() + text[1:]


def sentences(text: str) -> str:
    return re.sub(r"(?:^|[.?!] )[a-z]", lambda begun: begun[0].upper(), text)


CASINGS = ((str, 4), (first_letter, 3), (sentences, 6), (str.lower, 5), (str.upper, 1), (str.title, 1))
TYPO_RATE = 0.15
SHORTEST_WORD_WITH_TYPO = 4


def vary(text: str, rng: random.Random) -> str:
    """One of the ways in which `text` may be typed; the numbers in it are never touched."""
    if rng.random() < TYPO_RATE:
        text = misspell(text, rng)
    casings, weights = zip(*CASINGS)
    return rng.choices(casings, weights)[0](text)


def misspell(text: str, rng: random.Random) -> str:
    """Damages one letter inside one word: dropped, doubled or swapped with its neighbour. The first letter stays."""
    words = text.split(" ")
    long_words = [i for i, word in enumerate(words) if word.isalpha() and len(word) >= SHORTEST_WORD_WITH_TYPO]
    if not long_words:
        return text
    chosen = rng.choice(long_words)
    word = words[chosen]
    at = rng.randrange(1, len(word) - 1)
    before, letter, after, rest = word[:at], word[at], word[at + 1], word[at + 2 :]
    words[chosen] = rng.choice((before + after + rest, before + letter + letter + after + rest, before + after + letter + rest))
    return " ".join(words)
