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
