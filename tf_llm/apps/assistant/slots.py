"""What the words in a slot mean: each type of slot has a function from words to a value.

The type is what stands as an annotation at a tool's argument; SLOT_TYPES is a plain dictionary, to which you may add.
"""

import datetime
import re
from collections.abc import Callable
from typing import NamedTuple, NewType

from tf_llm.apps.assistant.calculator import CalculatorError, calculate, format_number
from tf_llm.apps.assistant.dates import format_day, format_moment, parse_day, parse_moment, parse_period
from tf_llm.apps.assistant.durations import format_duration, parse_duration
from tf_llm.apps.assistant.spoken_numbers import parse_number
from tf_llm.apps.assistant.units import parse_degrees, parse_quantity, parse_unit, show

Text = NewType("Text", str)  # the words themselves
Name = NewType("Name", str)  # of a list, a timer, a room: in small letters, without an article
Percentage = NewType("Percentage", float)  # from 0 to 100
Color = NewType("Color", str)  # as Home Assistant and CSS name it
Unit = NewType("Unit", str)  # as pint names it
Moment = datetime.datetime
Day = datetime.date
Duration = datetime.timedelta
LONGEST = 2000  # characters of a text
COLORS = """
aqua azure beige black blue brown coral crimson cyan fuchsia gold gray green indigo ivory khaki lavender lime magenta
maroon navy olive orange orchid pink plum purple red salmon silver tan teal tomato turquoise violet white yellow
"""
WHITES = {
    "warm white": "antiquewhite",
    "cool white": "azure",
    "cold white": "azure",
    "grey": "gray",
    "mint": "mintcream",
}
LEVELS = {"half": 50, "full": 100, "maximum": 100, "max": 100, "minimum": 1, "min": 1, "a third": 33, "a quarter": 25}


class SlotError(ValueError):
    """Words that a slot can make nothing of."""


class Period(NamedTuple):
    """From one moment to another."""

    begin: datetime.datetime
    end: datetime.datetime


class Quantity(NamedTuple):
    """Numbers with their units, as `parse_quantity` has them, and the words for it."""

    parts: tuple
    text: str


class Degrees(NamedTuple):
    """A temperature, or a difference between two."""

    value: float
    unit: str | None  # "degC", "degF", or None: the house knows


class Expression(NamedTuple):
    """A sum, and its value."""

    text: str
    value: object


class SlotType(NamedTuple):
    """How the words of a slot become a value, and how people read that."""

    read: Callable[[str, datetime.datetime], object]  # (words, now) -> value; a ValueError says what it expected
    show: Callable[[object], str] = str


def read_text(text, now):
    """The words, which have to be some, and such as a file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise SlotError(f"a text is expected to have whole characters. Received: {text[:100]!a}") from None
    if not 0 < len(text.strip()) <= LONGEST:
        raise SlotError(f"a text is expected to have 1 to {LONGEST} characters. Received: {len(text.strip())}")
    return text.strip()


def read_name(text, now):
    """A name, in small letters and without the article.

    >>> read_name("The  Living Room", None)
    'living room'
    """
    return re.sub(r"^(?:the|my|our|a|an) ", "", " ".join(read_text(text, now).lower().replace("’", "'").split()))


def read_percentage(text, now):
    """A share of a hundred, from 0 to 100."""
    words = re.sub(r"\s*(?:%|percent|per cent)$", "", " ".join(text.lower().split()))
    try:
        value = LEVELS[words] if words in LEVELS else parse_number(words)
    except ValueError:
        value = -1
    if not 0 <= value <= 100:
        raise SlotError(f"a brightness is expected to be like “40 percent”, from 0 to 100. Received: {text[:100]!r}")
    return float(value)


def read_color(text, now):
    """The name of a colour.

    >>> read_color("Warm White", None), read_color("teal", None)
    ('antiquewhite', 'teal')
    """
    name = " ".join(text.lower().split())
    name = WHITES.get(name, name.replace("grey", "gray"))
    if name not in COLORS.split() and name not in WHITES.values():
        raise SlotError(f"a colour is expected to be one of {', '.join(COLORS.split())}. Received: {text[:100]!r}")
    return name


def read_degrees(text, now):
    """A temperature."""
    value, unit = parse_degrees(text)
    return Degrees(float(value), unit)


def read_expression(text, now):
    """A sum that has a value."""
    try:
        return Expression(text, calculate(text))
    except CalculatorError as error:
        raise SlotError(str(error)) from error


def show_degrees(degrees):
    """A temperature as people read it."""
    unit = {"degC": " °C", "degF": " °F"}.get(degrees.unit, "°")
    return f"{degrees.value:g}{unit}"


SLOT_TYPES = {
    str: SlotType(read_text),
    Text: SlotType(read_text),
    Name: SlotType(read_name),
    float: SlotType(lambda text, now: float(parse_number(text)), format_number),
    Moment: SlotType(parse_moment, format_moment),
    Day: SlotType(parse_day, format_day),
    Period: SlotType(
        lambda text, now: Period(*parse_period(text, now)),
        lambda period: f"{format_moment(period.begin)} to {format_moment(period.end)}",
    ),
    Duration: SlotType(lambda text, now: parse_duration(text), format_duration),
    Percentage: SlotType(read_percentage, lambda value: f"{value:g} %"),
    Color: SlotType(read_color),
    Degrees: SlotType(read_degrees, show_degrees),
    Quantity: SlotType(lambda text, now: Quantity(parse_quantity(text), text), lambda quantity: quantity.text),
    Unit: SlotType(lambda text, now: parse_unit(text), show),
    Expression: SlotType(read_expression, lambda expression: expression.text),
}
