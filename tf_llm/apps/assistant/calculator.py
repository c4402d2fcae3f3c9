"""Sums as they are written and said: "12 * (3 + 4)", "twelve times 7", "15 % of 80", "the square root of 2".

Read by recursive descent: each method of `Sum` below is one line of the grammar. Nothing is evaluated but what it
reads, within limits, so that any text gives a number or a `CalculatorError`, and soon.

    expression = term {("+" | "-") term}              100 + 10 % is 110, as people mean it
    term       = signed {("*" | "/" | "mod" | "of") signed}
    signed     = {"-"} power
    power      = postfix ["^" signed]
    postfix    = primary {"%" | "!" | "squared" | "cubed" | "to the fourth" …}
    primary    = number [part] | part | "(" expression ")" | function signed | pair term {"and" term}

Numbers are fractions as long as they are exact: .1 + .2 is .3.
"""

import decimal
import math
from fractions import Fraction

from tf_llm.apps.assistant.spoken_numbers import read_number, split_words

LONGEST = 300  # characters
DEEPEST = 40  # brackets within brackets
BITS = 4096  # of the numerator and the denominator of an exact number
# What is said -> the sign that it stands for, or "" where it says nothing.
SIGNS = {
    "+": "plus|added to|＋",
    "-": "minus|less|take away|−|–",
    "*": "times|multiplied by|x|×|·|⋅|∗",
    "/": "divided by|over|÷|∕",
    "mod": "mod|modulo",
    "of": "of",
    "^": "to the power of|raised to the power of|to the power|raised to|to the|* *",
    "%": "percent|per cent|％",
    "!": "factorial",
    "squared": "squared|²",
    "cubed": "cubed|³",
    "sqrt": "square root of|square root|root of|sqrt of|sqrt|√",
    "cbrt": "cube root of|cube root|cbrt",
    "ln": "ln of|ln|natural logarithm of",
    "log": "log of|log|logarithm of",
    "abs": "absolute value of|abs",
    "twice": "twice|double",
    "thrice": "three times as much as|triple",
    "sum": "sum of",
    "difference": "difference between|difference of",
    "product": "product of",
    "quotient": "quotient of",
    "pi": "pi|π",
    "": "the",
}
PHRASES = {tuple(phrase.split()): sign for sign, phrases in SIGNS.items() for phrase in phrases.split("|")}
POWERS = {"squared": 2, "cubed": 3}
for exponent, name in enumerate(["fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"], 4):
    PHRASES |= {("to", "the", name): name, ("to", "the", name, "power"): name}
    POWERS[name] = exponent
WIDEST = max(map(len, PHRASES))
PARTS = {"half": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "eighth": 8, "tenth": 10}
PARTS |= {f"{name}s": count for name, count in PARTS.items() if count > 2} | {"halves": 2}
PAIRS = {
    "sum": lambda one, other: one + other,
    "difference": lambda one, other: one - other,
    "product": lambda one, other: one * other,
    "quotient": lambda one, other: one / other,
}


class CalculatorError(ValueError):
    """What was to be calculated is no sum, or has no result that is a number."""


def calculate(text):
    """The value of a sum.

    Args:
        text: as somebody said or wrote it.

    Returns:
        A Fraction where it is exact, else a float, which is finite.

    Raises:
        CalculatorError: the text is no sum that this module reads, or its result is no number, or is too large.

    >>> calculate("twelve times (3 + 4)"), calculate("15 % of 80"), calculate("2 to the power of 10")
    (Fraction(84, 1), Fraction(12, 1), Fraction(1024, 1))
    >>> calculate("1 / 0")
    Traceback (most recent call last):
    tf_llm.apps.assistant.calculator.CalculatorError: a sum is expected to divide by no zero. Received: '1 / 0'
    """
    if len(text) > LONGEST:
        raise refuse(f"have at most {LONGEST} characters", text)
    try:
        return Sum(text).calculate()
    except ZeroDivisionError:
        raise refuse("divide by no zero", text) from None
    except OverflowError:
        raise refuse("have a result that is not too large", text) from None


def refuse(expected, text):
    """The error about a text."""
    return CalculatorError(f"a sum is expected to {expected}. Received: {text[:100]!r}")


class Sum:
    """A text that is read from left to right."""

    def __init__(self, text):
        self._text, self._words, self._place, self._depth = text, split_words(text), 0, 0
        while self._words and self._words[-1] in ("=", "?", ".", "!") and self._words[-2:-1] != [")"]:
            if self._words[-1] == "!" and len(self._words) > 1 and read_number(self._words, len(self._words) - 2):
                break  # a factorial
            self._words.pop()

    def calculate(self):
        """The value of all of it."""
        value = self._read_expression()
        if self._place < len(self._words):
            raise refuse(f"go on in another way than with {self._words[self._place][:20]!r}", self._text)
        return value

    def _peek(self):
        """(what sign stands here, the place behind it); the sign is None where no sign does."""
        for width in range(WIDEST, 0, -1):
            phrase = tuple(self._words[self._place : self._place + width])
            if len(phrase) == width and phrase in PHRASES:
                if PHRASES[phrase]:
                    return PHRASES[phrase], self._place + width
                self._place += width
                return self._peek()
        here = self._words[self._place] if self._place < len(self._words) else None
        return (here, self._place + 1) if here in ("+", "-", "*", "/", "^", "%", "!", "(", ")", "and") else (None, None)

    def _take(self, *signs):
        """The sign that stands here, if it is one of these."""
        sign, behind = self._peek()
        if sign not in signs or sign is None:
            return None
        self._place = behind
        return sign

    def _read_expression(self):
        value, _ = self._read_term()
        while sign := self._take("+", "-"):
            other, is_share = self._read_term()
            if is_share:  # of what stands before it
                other = other * value
            value = self._check(value + other if sign == "+" else value - other)
        return value

    def _read_term(self):
        """(value, whether it is a percentage and nothing else)."""
        start = self._place
        value = self._read_signed()
        is_share = self._words[start:] != [] and self._is_share
        while True:
            sign = self._take("*", "/", "mod", "of") or ("*" if self._peek()[0] == "(" else None)
            if sign is None:
                return value, is_share
            other, is_share = self._read_signed(), False
            if sign in ("*", "of"):
                value = self._check(value * other)
            else:
                value = self._check(value / other if sign == "/" else value % other)

    def _read_signed(self):
        negative = False
        while self._take("-"):
            negative = not negative
        value = self._read_power()
        return -value if negative else value

    def _read_power(self):
        base = self._read_postfix()
        if self._take("^") is None:
            return base
        self._enter()
        exponent = self._read_signed()
        self._depth -= 1
        self._is_share = False
        return self._raise(base, exponent)

    def _read_postfix(self):
        value, self._is_share = self._read_primary(), False
        while sign := self._take("%", "!", *POWERS):
            self._is_share = sign == "%"
            if sign == "%":
                value = value / 100
            elif sign == "!":
                if value != int(value) or not 0 <= value <= 500:
                    raise refuse("have factorials of whole numbers from 0 to 500 alone", self._text)
                value = Fraction(math.factorial(int(value)))
            else:
                value = self._raise(value, POWERS[sign])
        return value

    def _read_primary(self):
        sign = self._take("(", "pi", "twice", "thrice", "sqrt", "cbrt", "ln", "log", "abs", *PAIRS)
        if sign == "pi":
            return math.pi
        if sign is None:
            return self._read_number()
        self._enter()
        if sign == "(":
            value = self._read_expression()
            if self._take(")") is None:
                raise refuse("have pairs of brackets", self._text)
        elif sign in PAIRS:
            value, _ = self._read_term()
            if self._peek()[0] != "and":
                raise refuse(f"have two numbers with “and” between them behind “{sign}”", self._text)
            while self._take("and"):
                value = self._check(PAIRS[sign](value, self._read_term()[0]))
        else:
            value = self._apply(sign, self._read_signed())
        self._depth -= 1
        return value

    def _read_number(self):
        """A number, a part ("a third", "half"), or so many of those ("three quarters")."""
        words = self._words[self._place : self._place + 2]
        if words[:1] in (["a"], ["one"]) and words[1:] and words[1] in PARTS:
            self._place += 1
            count = Fraction(1)
        elif words and words[0] in PARTS:
            count = Fraction(1)
        else:
            number = read_number(self._words, self._place)
            if number is None:
                here = repr(words[0][:20]) if words else "its end"
                raise refuse(f"have a number in place of {here}", self._text)
            count, self._place = number
        if self._words[self._place : self._place + 1] and self._words[self._place] in PARTS:
            count, self._place = count / PARTS[self._words[self._place]], self._place + 1
        return self._check(count)

    def _enter(self):
        self._depth += 1
        if self._depth > DEEPEST:
            raise refuse(f"have at most {DEEPEST} brackets within each other", self._text)

    def _check(self, value):
        """A value that is not too large, and a float where it takes too long to be exact."""
        if isinstance(value, Fraction) and max(value.numerator.bit_length(), value.denominator.bit_length()) > BITS:
            value = float(value)
        if isinstance(value, float) and not math.isfinite(value):
            raise OverflowError
        return value

    def _raise(self, base, exponent):
        if isinstance(base, Fraction) and exponent == int(exponent):
            bits = max(base.numerator.bit_length(), base.denominator.bit_length())
            if bits * abs(exponent) <= BITS:
                return base ** int(exponent)
        value = float(base) ** float(exponent)
        if isinstance(value, complex):
            raise refuse("have a result that is a real number", self._text)
        return self._check(value)

    def _apply(self, function, value):
        if function in ("twice", "thrice"):
            return self._check(value * (2 if function == "twice" else 3))
        if function == "abs":
            return abs(value)
        if function == "cbrt":
            root = round(math.cbrt(value))
            return Fraction(root) if root**3 == value else math.cbrt(value)
        if value < 0 or (value == 0 and function != "sqrt"):
            raise refuse("have a result that is a real number", self._text)
        if function != "sqrt":
            return math.log(value) if function == "ln" else math.log10(value)
        if isinstance(value, Fraction):
            root = Fraction(math.isqrt(value.numerator), math.isqrt(value.denominator))
            if root * root == value:
                return root
        return math.sqrt(value)


def format_number(value, digits=12):
    """A number as people read it, of so many digits; "≈" stands before one that is rounded.

    >>> format_number(Fraction(3, 2)), format_number(Fraction(1234567)), format_number(Fraction(1, 3), 4)
    ('1.5', '1,234,567', '≈ 0.3333')
    >>> format_number(Fraction(2) ** 200)
    '≈ 1.60693804426 × 10^60'
    """
    exact = Fraction(value)
    with decimal.localcontext(decimal.Context(prec=digits, Emax=10**6, Emin=-(10**6))):
        rounded = decimal.Decimal(exact.numerator) / decimal.Decimal(exact.denominator)
    if exact.denominator == 1 and abs(exact) < 10**18:
        return f"{int(exact):,}"
    about = "" if Fraction(rounded) == exact else "≈ "
    if rounded and not -6 <= rounded.adjusted() < 15:
        mantissa = rounded.scaleb(-rounded.adjusted()).normalize()
        return f"{about}{mantissa:f} × 10^{rounded.adjusted()}"
    return f"{about}{rounded.normalize():,f}"
