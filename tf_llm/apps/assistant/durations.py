"""How long something takes, as it is said: "an hour and a half", "1 h 30", "three quarters of an hour", "90 s"."""

import datetime
import re
from fractions import Fraction

from tf_llm.apps.assistant.spoken_numbers import PARTS, read_number, split_words

UNITS = {
    "second": "second sec s",
    "minute": "minute min m",
    "hour": "hour hr h",
    "day": "day d",
    "week": "week wk",
    "fortnight": "fortnight",
}
SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800, "fortnight": 1209600}
NAMES = {form: unit for unit, names in UNITS.items() for name in names.split() for form in (name, f"{name}s")}
COUNTS = {  # what is said in place of a number
    "a quarter of": Fraction(1, 4),
    "quarter of": Fraction(1, 4),
    "three quarters of": Fraction(3, 4),
    "a third of": Fraction(1, 3),
    "half": Fraction(1, 2),
    "half of": Fraction(1, 2),
    "a half": Fraction(1, 2),
    "a couple of": Fraction(2),
    "a": Fraction(1),
    "an": Fraction(1),
    "another": Fraction(1),
}
LONGEST = 10 * 366 * 86400  # seconds


class DurationError(ValueError):
    """A text that names no length of time."""


def parse_duration(text):
    """The length of time that a text names.

    Args:
        text: as it was said.

    Returns:
        A datetime.timedelta above 0.

    Raises:
        DurationError: it names none, or one of more than ten years.

    >>> str(parse_duration("two and a half hours")), str(parse_duration("1 h 30")), str(parse_duration("half an hour"))
    ('2:30:00', '1:30:00', '0:30:00')
    """
    words = split_words(re.sub(r"(?<=\d)-(?=[^\W\d_])", " ", text[:200]))
    place, seconds, unit = 0, Fraction(0), None
    while place < len(words):
        if words[place] in ("and", ",", "of", "for") and place + 1 < len(words):
            place += 1
            continue
        if unit and words[place] == "a" and words[place + 1 : place + 2] and words[place + 1] in PARTS:
            seconds, place = seconds + PARTS[words[place + 1]] * SECONDS[unit], place + 2  # "an hour and a half"
            continue
        count, behind = _read_count(words, place)
        if count is None:
            break
        before, unit = unit, NAMES.get(words[behind]) if behind < len(words) else None
        if unit is None and before == "hour" and behind == len(words):
            unit, behind = "minute", behind - 1  # "1 h 30"
        if unit is None:
            break
        seconds, place = seconds + count * SECONDS[unit], behind + 1
    if not words or place < len(words) or not 0 < seconds <= LONGEST:
        raise DurationError(
            f"a length of time is expected to be like “ten minutes”, up to ten years. Received: {text[:100]!r}"
        )
    return datetime.timedelta(seconds=float(seconds))


def _read_count(words, place):
    """How many units are meant, and the place behind that; None where nothing says so."""
    number = read_number(words, place)
    count, behind = number or (None, place)
    for width in (3, 2, 1):
        phrase = " ".join(words[place : place + width])
        if phrase in COUNTS and (number is None or "of" in phrase):
            count, behind = COUNTS[phrase], place + width
            break
    if count is not None and words[behind : behind + 1] in (["a"], ["an"]):
        behind += 1  # "half an hour", "a quarter of an hour"
    return count, behind


def format_duration(length):
    """A length of time as people read it.

    >>> format_duration(datetime.timedelta(hours=25, minutes=1)), format_duration(datetime.timedelta(seconds=.4))
    ('1 day 1 hour 1 minute', '0 seconds')
    """
    rest, parts = int(length.total_seconds()), []
    for unit in ("day", "hour", "minute", "second"):
        count, rest = divmod(rest, SECONDS[unit])
        if count:
            parts.append(f"{count:,} {unit}{'' if count == 1 else 's'}")
    return " ".join(parts) or "0 seconds"
