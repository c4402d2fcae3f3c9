"""The time of day, as it is said: "half past six", "7:30 pm", "nine in the evening", "noon".

`find_clock` takes it out of a text in which a day may be named as well; what is left is for dates.py.
"""

import dataclasses
import re

from tf_llm.apps.assistant.spoken_numbers import ONES, parse_number

NUMBER = rf"\d{{1,2}}|(?:twenty|thirty|forty|fifty)(?:[ -](?:{'|'.join(ONES[1:10])}))?|{'|'.join(reversed(ONES[1:]))}"
MINUTE = rf"\d\d|(?:twenty|thirty|forty|fifty)(?:[ -](?:{'|'.join(ONES[1:10])}))?|{'|'.join(reversed(ONES[10:]))}"
HALF = r"(?P<half>a\.?m\b\.?|p\.?m\b\.?)"
PART = r"(?:in the (?P<part>morning|afternoon|evening)|at (?P<night>night))"
HALF_OR_PART = rf"(?: ?{HALF}| {PART})"
BEFORE = r"(?:\b(?:at|by|around|about|exactly|from) +)*"
# One pattern for each way to say it; the first that is found counts.
WAYS = [
    re.compile(rf"{BEFORE}{pattern}", re.ASCII)
    for pattern in (
        r"\b(?P<named>noon|midday|midnight)\b",
        rf"(?:\ba )?\b(?P<minutes>half|quarter|{NUMBER})(?: minutes?)? (?P<side>past|to|after|before) "
        rf"(?P<hour>{NUMBER})\b{HALF_OR_PART}?",
        rf"\b(?P<hour>\d{{1,2}})[:.](?P<minutes>\d\d)(?!\d){HALF_OR_PART}?",
        rf"\b(?P<hour>{NUMBER}) (?P<minutes>{MINUTE})\b{HALF_OR_PART}?",
        rf"\b(?P<hour>{NUMBER})(?: o'?clock)?{HALF_OR_PART}",
        rf"\b(?P<hour>{NUMBER}) o'?clock\b",
        # A number alone may be the day of a month: it is a time behind "at", or beside a day.
        rf"\b(?:at|by|around|about|exactly) +(?P<hour>{NUMBER})\b(?! ?(?:day|week|minute|hour))",
        rf"^(?P<hour>{NUMBER})(?= (?:on |tomorrow|tonight|today|the day|this |next |[a-z]+day\b)|$)",
        rf"(?:(?<=day )|(?<=morrow )|(?<=night ))(?P<hour>{NUMBER})$",
    )
]


@dataclasses.dataclass(frozen=True)
class Clock:
    """A time of day; midnight is at 24. Without `sure`, it may be meant in the other half of the day."""

    hour: int
    minute: int = 0
    sure: bool = True


def find_clock(text):
    """The time of day in a text.

    Args:
        text: in small letters.

    Returns:
        (a `Clock`, the text without it), or (None, the text) where there is none.

    Raises:
        ValueError: there is one that no clock shows.

    >>> find_clock("tomorrow at half past six")
    (Clock(hour=6, minute=30, sure=False), 'tomorrow')
    >>> find_clock("monday 7 pm"), find_clock("on the 5th")
    ((Clock(hour=19, minute=0, sure=True), 'monday'), (None, 'on the 5th'))
    """
    for way in WAYS:
        match = way.search(text)
        if match:
            clock = _read(match.groupdict())
            return clock, " ".join(f"{text[: match.start()]} {text[match.end() :]}".split())
    return None, text


def _read(said):
    """The `Clock` that the groups of a match say."""
    if said.get("named"):
        return Clock(24 if said["named"] == "midnight" else 12)
    hour = int(parse_number(said["hour"]))
    minutes = {None: 0, "half": 30, "quarter": 15}.get(said.get("minutes"))
    if minutes is None:
        minutes = int(parse_number(said["minutes"]))
    half = (said.get("half") or "").replace(".", "")
    part = said.get("part") or ("night" if said.get("night") else None)
    if hour > 24 or minutes > 59 or (half and not 1 <= hour <= 12):
        said = f"{hour}:{minutes:02} {half}".rstrip()
        raise ValueError(f"a time is expected to be one that a clock shows. Received: {said}")
    if said.get("side") in ("to", "before"):
        hour, minutes = hour - (minutes > 0), (60 - minutes) % 60
        hour = 12 if hour == 0 and not half else hour
    sure = bool(half or part) or hour > 12 or hour == 0
    if half == "pm" or part in ("afternoon", "evening") or (part == "night" and hour >= 6):
        hour = hour % 12 + 12
    elif half == "am" or part in ("morning", "night"):
        hour %= 12
    return Clock(hour % 24, minutes, sure)
