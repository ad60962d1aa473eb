"""Terms of the trade, explained: `terms.txt` has one a line, `name, other names | explanation`."""

import random
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).parent / "terms.txt"

QUESTIONS = (
    "what is {a} {t}?", "what is {a} {t}?", "what is {t}?", "what's {a} {t}?", "what does {t} mean?", "define {t}", "define {t}.", "explain {t}",
    "explain {t}, please", "please explain {t}", "please explain {a} {t}", "can you explain {t}?", "could you explain what {t} means?", "tell me what {a} {t} is",
    "what do you mean by {t}?", "what is meant by {t}?", "{t}?", "meaning of {t}?", "what is the meaning of {t}?", "explain the term {t}",
    "what is the definition of {t}?", "do you know what {t} is?", "i don't know what {t} means", "hey, what is {a} {t}?", "tell me about {t}",
    "what exactly is {a} {t}?", "so what is {t}?", "in one sentence: what is {t}?", "describe {t}", "sorry, what is {a} {t}?", "what on earth is {t}?",
    "define the term {t}, please", "what are {t}s?", "i read about {t}. what is it?", "my colleague said {t}. what does that mean?",
)  # fmt: skip


@dataclass(frozen=True)
class Term:
    names: tuple[str, ...]
    explanation: str


def load(path: Path = FILE) -> tuple[Term, ...]:
    terms = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        names, bar, explanation = line.partition("|")
        if not bar or not names.strip() or not explanation.strip():
            raise ValueError(f"{path}:{number}: {line!r} is not `name, other names | explanation`")
        terms.append(Term(tuple(name.strip() for name in names.split(",")), explanation.strip()))
    return tuple(terms)


def ask(terms: tuple[Term, ...], rng: random.Random) -> tuple[str, str, list[str]]:
    """A question, the explanation, and its key: this question about this term."""
    term = rng.choice(terms)
    name = term.names[0] if rng.random() < 0.7 else rng.choice(term.names)
    question = rng.choice(QUESTIONS)
    article = rng.choice(("", "an" if name[0].lower() in "aeiou" else "a"))
    prompt = " ".join(question.format(t=name, a=article).split())
    return prompt, term.explanation, [f"term {prompt}"]
