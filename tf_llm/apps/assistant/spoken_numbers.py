"""Numbers as they are said: "twenty-three point five", "two hundred and five", "a dozen", "1,250.75".

Shared by what reads sums, quantities, durations and dates.
"""

import re
from fractions import Fraction

COUNTING = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
ONES, TEN_BY_TEN = COUNTING.split(), "twenty thirty forty fifty sixty seventy eighty ninety"
TENS = TEN_BY_TEN.split()
SMALL = {word: value for value, word in enumerate(ONES)} | {word: 10 * value for value, word in enumerate(TENS, 2)}
LARGE = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
PARTS = {"half": Fraction(1, 2), "quarter": Fraction(1, 4), "third": Fraction(1, 3)}
DIGITS = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+", re.ASCII)
LONGEST = 40  # characters of a number in digits, words of one in words


def spell_number(number):
    """A whole number from 0 to 999,999 in words.

    >>> spell_number(0), spell_number(45), spell_number(3200), spell_number(117)
    ('zero', 'forty-five', 'three thousand two hundred', 'one hundred and seventeen')
    """
    if number < 20:
        return ONES[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return TENS[tens - 2] + (f"-{ONES[ones]}" if ones else "")
    for size, word in ((1000, "thousand"), (100, "hundred")):
        if number >= size:
            count, rest = divmod(number, size)
            joint = " and " if size == 100 or rest < 100 else " "
            return f"{spell_number(count)} {word}" + (joint + spell_number(rest) if rest else "")


def split_words(text):
    """Numbers in digits, words and signs of a text, in small letters; a hyphen between letters only joins them.

    >>> split_words("Twenty-three × 1,250.75!")
    ['twenty', 'three', '×', '1,250.75', '!']
    """
    text = re.sub(r"(?<=[^\W\d_])[-‐‑](?=[^\W\d_])", " ", text.lower().replace("’", "'"))
    return [match.group() for match in re.finditer(rf"{DIGITS.pattern}|[^\W\d_]+(?:'[^\W\d_]+)?|\S", text)]


def read_number(words, place=0):
    """The number that begins at a place among words.

    Args:
        words: those of `split_words`.
        place: where to begin.

    Returns:
        (its value as a Fraction, the place behind it), or None where no number begins.

    >>> read_number(["two", "hundred", "and", "five", "miles"])
    (Fraction(205, 1), 4)
    """
    if place < len(words) and DIGITS.fullmatch(words[place]):
        if len(words[place]) > LONGEST:
            return None
        whole = Fraction(words[place].replace(",", "")), place + 1
    else:
        whole = _read_whole(words, place)
        if whole is None and words[place : place + 1] != ["point"]:
            return None
    value, place = whole or (Fraction(0), place)
    if words[place : place + 1] == ["point"]:
        decimals, behind = "", place + 1
        while behind < len(words) and (words[behind] in ONES[:10] or re.fullmatch("[0-9]", words[behind])):
            decimals += str(SMALL.get(words[behind], words[behind]))
            behind += 1
        if decimals and len(decimals) <= LONGEST and value.denominator == 1:
            value, place = value + Fraction(f"0.{decimals}"), behind
        elif whole is None:
            return None
    while place < len(words) and words[place] in LARGE:
        value, place = value * LARGE[words[place]], place + 1
    if words[place : place + 2] == ["and", "a"] and words[place + 2 : place + 3] in (["half"], ["quarter"], ["third"]):
        value, place = value + PARTS[words[place + 2]], place + 3
    return value, place


def _read_whole(words, place):
    """The whole number in words at a place, and the place behind it."""
    start, total, current, largest = place, 0, 0, None
    if words[place : place + 1] == ["a"] and words[place + 1 : place + 2] in (["hundred"], ["thousand"], ["million"]):
        place, current = place + 1, 1
    for _ in range(LONGEST):
        word = words[place] if place < len(words) else ""
        after = words[place + 1] if place + 1 < len(words) else ""
        if word in SMALL and _fits(current, SMALL[word], words[start:place]):
            current += SMALL[word]
        elif word == "dozen" and current:
            current *= 12
        elif word == "hundred" and 0 < current < 100:
            current *= 100
        elif word in LARGE and current and (largest is None or LARGE[word] < largest):
            total, current, largest = total + current * LARGE[word], 0, LARGE[word]
        elif not (
            word == "and" and after in SMALL and (current >= 100 > current % 100 == 0 or (total and not current))
        ):
            break
        place += 1
    return (
        (Fraction(total + current), place) if place > start and (total or current or words[start] == "zero") else None
    )


def _fits(current, value, before):
    """Whether a small number may follow what was said: "twenty" "three", "hundred" "and" "five", not "five" "three"."""
    if current == 0:
        return before[-1:] != ["zero"]
    return current % 100 == 0 or (0 < value < 10 and current % 100 >= 20 and current % 10 == 0)


def parse_number(text):
    """The number that a text is.

    Raises:
        ValueError: it is none.

    >>> parse_number("minus twenty-three point five"), parse_number("two and a half")
    (Fraction(-47, 2), Fraction(5, 2))
    """
    words = split_words(text)
    negative = words[:1] in (["minus"], ["negative"], ["-"], ["−"])
    number = read_number(words, 1 if negative else 0)
    if number is None or number[1] < len(words):
        raise ValueError(f"a number is expected to be in digits or in words. Received: {text[:100]!r}")
    return -number[0] if negative else number[0]
