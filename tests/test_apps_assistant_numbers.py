"""Numbers as they are said, and sums of them."""

import math
import random
import time
from fractions import Fraction

import pytest
from nonsense import make_nonsense

from tf_llm.apps.assistant.calculator import CalculatorError, calculate, format_number
from tf_llm.apps.assistant.spoken_numbers import parse_number, spell_number


def test_what_is_spelt_is_read():
    for number in [*range(1001), 1999, 20_000, 123_456, 999_999]:
        assert parse_number(spell_number(number)) == number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,250.75", Fraction("1250.75")),
        (".5", Fraction(1, 2)),
        ("point two five", Fraction(1, 4)),
        ("three point one four", Fraction("3.14")),
        ("3.5 million", 3_500_000),
        ("two million three hundred thousand and six", 2_300_006),
        ("a hundred and one", 101),
        ("two dozen", 24),
        ("nineteen and a half", Fraction("19.5")),
        ("zero", 0),
        ("negative 40", -40),
    ],
)
def test_numbers_are_said_in_many_ways(text, value):
    assert parse_number(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "a", "two three", "ten five", "twenty twelve", "hundred", "zero zero", "1,25", "1.2.3", "and five", "９" * 50],
)
def test_what_is_no_number_is_refused(text):
    with pytest.raises(ValueError, match=r"a number is expected to be in digits or in words\. Received: "):
        parse_number(text)


# === Sums ===


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("2 - 3 - 4", -5),
        ("24 / 4 / 2", 3),
        ("2 ^ 3 ^ 2", 512),
        ("2**3", 8),
        ("-2 ^ 2", -4),
        ("2 ^ -2", Fraction(1, 4)),
        ("- - 3", 3),
        (".1 + .2", Fraction(3, 10)),
        ("2 (3 + 4)", 14),
        ("twenty-three point five times two", 47),
        ("two hundred and five plus one", 206),
        ("15 % of 80", 12),
        ("fifteen per cent of eighty", 12),
        ("100 + 10 %", 110),
        ("100 - 10% - 10%", 81),
        ("50 % * 4", 2),
        ("10 + 20% of 50", 20),
        ("half of 30", 15),
        ("a third of 90 plus 1", 31),
        ("three quarters of 80", 60),
        ("one half plus a quarter", Fraction(3, 4)),
        ("the sum of 3 and 4", 7),
        ("the product of 2 and 3 and 4 minus 1", 23),
        ("the difference between 10 and 4", 6),
        ("5 squared plus 2 cubed", 33),
        ("5! - 1", 119),
        ("three factorial", 6),
        ("3! =", 6),
        ("2 to the power of ten?", 1024),
        ("two to the fourth", 16),
        ("a fourth to the fifth power", Fraction(1, 1024)),
        ("two to the 4", 16),
        ("the square root of 2 squared", 2),
        ("√16 + sqrt(9) + square root of 4/9", Fraction(7) + Fraction(2, 9)),
        ("cube root of 27", 3),
        ("17 mod 5", 2),
        ("twice 3 + 1", 7),
        ("log(1000)", 3),
        ("4 × 5 ÷ 2 − 1", 9),
        ("12 x 12", 144),
        ("1,000 + 1", 1001),
    ],
)
def test_sums_have_the_value_that_people_mean(text, value):
    assert calculate(text) == pytest.approx(value, rel=1e-14)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "have a number in place of its end"),
        ("what", "have a number in place of 'what'"),
        ("1 +", "have a number in place of its end"),
        ("1 2", "go on in another way than with '2'"),
        ("(1", "have pairs of brackets"),
        ("1 / 0", "divide by no zero"),
        ("5 mod 0", "divide by no zero"),
        ("0 ^ -1", "divide by no zero"),
        ("9 ^ 9 ^ 9", "have a result that is not too large"),
        ("10 ^ 400 * 10 ^ 400 * 10 ^ 900 * 10 ^ 900", "have a result that is not too large"),
        ("the square root of -1", "have a result that is a real number"),
        ("(-8) ^ .5", "have a result that is a real number"),
        ("ln 0", "have a result that is a real number"),
        ("501!", "have factorials of whole numbers from 0 to 500 alone"),
        ("2.5!", "have factorials of whole numbers from 0 to 500 alone"),
        ("(" * 100, "have at most 40 brackets within each other"),
        ("2^" * 99 + "2", "have at most 40 brackets within each other"),
        ("1+" * 200, "have at most 300 characters"),
        ("the sum of 3", "have two numbers with “and” between them behind “sum”"),
        ("__import__('os')", "have a number in place of '_'"),
        ("[1]", "have a number in place of '['"),
    ],
)
def test_what_is_no_sum_is_refused(text, expected):
    with pytest.raises(CalculatorError) as error:
        calculate(text)
    assert str(error.value) == f"a sum is expected to {expected}. Received: {text[:100]!r}"


def test_any_text_gives_a_number_or_a_typed_error_soon():
    """A small version of examples/benchmarks/assistant_is_safe.py."""
    draw, numbers = random.Random(1), 0
    for _ in range(1500):
        text, start = make_nonsense(draw), time.process_time()
        try:
            value = calculate(text)
        except CalculatorError as error:
            assert str(error).startswith("a sum is expected to ")
        else:
            numbers += 1
            assert isinstance(value, Fraction) or math.isfinite(value)
            assert len(format_number(value)) < 40
        assert time.process_time() - start < 0.05, text
    assert numbers > 200


def test_numbers_are_written_for_people():
    assert format_number(Fraction(-5, 4)) == "-1.25" and format_number(Fraction(0)) == "0"
    assert format_number(math.sqrt(2)) == "≈ 1.41421356237"
    assert format_number(Fraction(1, 10**9)) == "1 × 10^-9" and format_number(1e300) == "≈ 1 × 10^300"
