"""Texts for the calculator that are almost sums, or nothing at all."""

from tf_llm.apps.assistant.calculator import PHRASES

SIGNS = [*"+-*/^%!()×÷√²³=.,", "**", "^^", "9" * 40, "1e308", "0", "0.", "1/3", "\0", "é", "🙂", "\u202e", "１", "½"]
WORDS = "and a half third quarters hundred thousand twelve zero point import lambda x"
NUMBERS = ["2", "10", "99", "0.5", "seven", "500", "1,000"]


def make_nonsense(draw):
    """A text of at most some 320 characters; one of the kinds is likely to have a value."""
    kind = draw.random()
    if kind < 0.2:
        return "".join(
            chr(draw.choice((draw.randrange(32, 127), draw.randrange(0x3000)))) for _ in range(draw.randrange(320))
        )
    if kind < 0.5:
        pieces = [*SIGNS, *WORDS.split(), *NUMBERS, *map(" ".join, PHRASES)]
        return " ".join(draw.choices(pieces, k=draw.randrange(40)))
    if kind < 0.6:
        return draw.choice([*SIGNS, *NUMBERS, "sqrt", "2^", "2!", "(9)^"]) * draw.randrange(1, 100)
    signs = ["+", "-", "*", "/", "^", "times", "minus", "over", "mod", "to the power of", "percent of"]
    texts = [draw.choice(NUMBERS)]
    for _ in range(draw.randrange(1, 25)):
        texts += [draw.choice(signs), draw.choice(["", "", "", "sqrt ", "-", "twice "]) + draw.choice(NUMBERS)]
    return " ".join(texts)
