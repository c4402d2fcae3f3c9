"""Days, moments and periods, as they are said: "tomorrow at six", "next friday", "in three weeks", "this weekend".

What is relative is read here; dates with the name or number of a month are left to dateparser
(https://dateparser.readthedocs.io), of the extra `assistant`. `now` is always given, with its time zone: nothing here
asks the clock.
"""

import datetime
import re

from tf_llm.apps.assistant.clock import Clock, find_clock
from tf_llm.apps.assistant.durations import NAMES, DurationError, parse_duration
from tf_llm.apps.assistant.spoken_numbers import ONES, TENS, parse_number
from tf_llm.contracts import UserError

LONGEST = 100  # characters
WEEKDAYS = "monday tuesday wednesday thursday friday saturday sunday"
PARTS = {  # of a day: the hour that is meant by it, and where it begins and ends
    "first thing": (8, 6, 12),
    "early morning": (7, 4, 9),
    "morning": (9, 5, 12),
    "lunchtime": (12, 11, 14),
    "afternoon": (15, 12, 18),
    "evening": (19, 17, 24),
    "late night": (22, 20, 24),
    "night": (21, 18, 24),
}
FEASTS = {  # month, day
    "new year's eve": (12, 31),
    "new year's day": (1, 1),
    "new year": (1, 1),
    "valentine's day": (2, 14),
    "halloween": (10, 31),
    "christmas eve": (12, 24),
    "christmas day": (12, 25),
    "christmas": (12, 25),
    "boxing day": (12, 26),
}
ORDINALS = {"first": 1, "second": 2, "third": 3, "fifth": 5, "eighth": 8, "ninth": 9, "twelfth": 12}
ORDINALS |= {f"{name}th": number for number, name in enumerate(ONES) if number in (4, 6, 7, 10, 11) or number > 12}
ORDINALS |= {f"{name[:-1]}ieth": 10 * number for number, name in enumerate(TENS, 2) if number < 4}
ORDINALS |= {
    f"{tens} {name}": number + ORDINALS[name]
    for tens, number in (("twenty", 20), ("thirty", 30))
    for name in list(ORDINALS)
    if ORDINALS[name] < 10
}
ORDINAL = re.compile(rf"\b(?:{'|'.join(sorted(ORDINALS, key=len, reverse=True))})\b(?! of an?\b| thing\b)")
LENGTH = re.compile(r"(?:in |after )(?P<length>.+)|(?P<later>.+?) (?:from|after) (?P<start>now|today|tomorrow)")
MONTHS = re.compile(r"(?P<count>.+) (?P<unit>month|year)s?")
WEEKDAY = re.compile(
    rf"(?:(?P<which>next|this coming|this|coming) )?(?P<day>{WEEKDAYS.replace(' ', '|')})(?P<week> week)?"
)


class DateError(ValueError):
    """A text that names no day, moment or period."""


def parse_moment(text, now):
    """The moment that a text names: the next one, if it leaves that open.

    Args:
        text: as it was said.
        now: an aware datetime.

    Returns:
        An aware datetime. A day without a time is meant at nine; an hour that may be in either half of a day is the
        next one, or, with a day, in the afternoon if it is from twelve to half past six.

    Raises:
        DateError: it names none.

    >>> now = datetime.datetime(2026, 11, 30, 16, 20, tzinfo=datetime.UTC)  # a Monday
    >>> str(parse_moment("tomorrow at half past six in the evening", now)), str(parse_moment("in ten minutes", now))
    ('2026-12-01 18:30:00+00:00', '2026-11-30 16:30:00+00:00')
    """
    tidied = tidy(text)
    length = find_length(tidied, now)
    if length is not None and length[1]:
        return length[0]
    clock, rest, part = split_day(tidied, text)
    day = find_day(rest, now) if rest else None
    if (rest and day is None) or not (rest or clock or part):
        raise refuse("a moment", "like “tomorrow at six”", text)
    if clock is None:
        usual, _, end = PARTS[part] if part else (9, 9, 24)
        if day in (None, now.date()) and usual <= now.hour < end - 1:
            usual = now.hour + 1  # "this afternoon" goes on
        clock = Clock(usual)
    moments = sorted(list_moments(clock, day, part, now))
    if moments[-1] <= now:
        raise refuse("a moment", "in the future", text)
    return next(moment for moment in moments if moment > now)


def list_moments(clock, day, part, now):
    """The moments that a clock may mean, on a day and in a part of it, either of which may be None."""
    days = [day] if day else [now.date(), now.date() + datetime.timedelta(days=1)]
    hours = [clock.hour] if clock.sure else [clock.hour % 12, clock.hour % 12 + 12]
    if part and not clock.sure:  # "tonight at eight"; what is said of the night goes on to the next day
        _, begin, end = PARTS[part]
        hours = [hour + 24 * ("night" in part and hour < 6) for hour in hours]
        hours = [hour for hour in hours if begin <= hour < end + 6 * ("night" in part)] or hours[-1:]
        days = days[:1]
    elif not clock.sure and day is not None and day > now.date():
        hours = hours[1:] if clock.hour % 12 <= 6 else hours[:1]
    for each in days:
        for hour in hours:
            yield set_time(each + datetime.timedelta(days=hour // 24), hour % 24, clock.minute, now)


def parse_day(text, now):
    """The day that a text names, a datetime.date: the next one, if it leaves the year or the week open.

    Raises:
        DateError: it names none.
    """
    tidied = tidy(text)
    length = find_length(tidied, now)
    day = length[0].date() if length else find_day(split_day(tidied, text)[1] or "today", now)
    if day is None:
        raise refuse("a day", "like “next friday” or “the 5th of May”", text)
    return day


def parse_period(text, now):
    """The time between two moments that a text names: (begin, end), aware datetimes.

    Raises:
        DateError: it names none.

    >>> now = datetime.datetime(2026, 11, 30, 16, 20, tzinfo=datetime.UTC)  # a Monday
    >>> [str(moment.date()) for moment in parse_period("this weekend", now)]
    ['2026-12-05', '2026-12-07']
    """
    tidied, today = tidy(text), now.date()
    monday = today - datetime.timedelta(days=today.weekday())
    week, month = datetime.timedelta(weeks=1), today.replace(day=1)
    whole = {
        "this week": (monday, monday + week),
        "next week": (monday + week, monday + 2 * week),
        "this month": (month, shift_months(month, 1)),
        "next month": (shift_months(month, 1), shift_months(month, 2)),
    }
    if re.fullmatch(r"(this |next )?weekend", tidied):
        saturday = monday + datetime.timedelta(days=5) + (week if tidied.startswith("next") else 0 * week)
        whole[tidied] = (saturday, saturday + datetime.timedelta(days=2))
    whole["my week"] = whole["week"] = whole["this week"]
    if tidied in whole:
        begin, end = whole[tidied]
        return set_time(begin, 0, 0, now), set_time(end, 0, 0, now)
    day, (clock, _, part) = parse_day(text, now), split_day(tidied, text)
    if clock is not None:
        moment = parse_moment(text, now)
        return moment, moment + datetime.timedelta(hours=1)
    _, begin, end = PARTS[part] if part else (0, 0, 24)
    return set_time(day, begin, 0, now), set_time(day, 0, 0, now) + datetime.timedelta(hours=end)


def tidy(text):
    """The text in small letters, without what says nothing; ordinals in digits."""
    if len(text) > LONGEST:
        raise refuse("a time", f"of at most {LONGEST} characters", text)
    text = " ".join(re.sub(r"[’‘]", "'", text.lower()).replace(",", " ").split()).strip("?! ")
    text = re.sub(r"\b(twenty|thirty)-", r"\1 ", text)
    text = ORDINAL.sub(lambda match: f"{ORDINALS[match.group()]}th", text)
    text = re.sub(r"^(?:on|for|by|at the|over the|over|around) |^the (?=weekend)|\b(?:exactly|please) ", "", text)
    return re.sub(r"\b(valentine|new year)s\b", r"\1's", text)


def split_day(tidied, text):
    """(the `Clock` in a text or None, the words for a day that are left, the part of the day or None)."""
    try:
        clock, rest = find_clock(tidied)
    except ValueError as error:
        raise DateError(f"{error}, in {text[:LONGEST]!r}") from None
    rest = rest.replace("late tonight", "late night").replace("tonight", "night")
    rest = re.sub(r"\bearly (.*)\bmorning", r"\1early morning", rest)
    part = next((name for name in PARTS if re.search(rf"\b{name}\b", rest)), None)
    if part:
        rest = re.sub(rf"\b(?:in the |this )?{part}\b", " ", rest)
    rest = re.sub(r"^(?:on|for|by|at|the|around)\b|\b(?:at|on|around)$", " ", " ".join(rest.split()))
    return clock, " ".join(rest.split()), part


def find_length(tidied, now):
    """(the moment that is so far from now, whether the time of day counts), or None where no length is named."""
    match = LENGTH.fullmatch(tidied) or re.fullmatch(r"(?P<length>a) (?P<start>week) (?:from now|later)", tidied)
    if match is None:
        return None
    said = match.group("length") or match.group("later")
    start = now + datetime.timedelta(days=1) if match.group("start") == "tomorrow" else now
    months = MONTHS.fullmatch(said)
    try:
        if months is None:
            length = parse_duration(said)
            exact = not any(NAMES.get(word) in ("day", "week", "fortnight") for word in said.split())
            if exact:  # minutes, also when the clocks change in between
                return (now.astimezone(datetime.UTC) + length).astimezone(now.tzinfo), True
            return start + length, False
        count = 1 if months["count"] in ("a", "an") else parse_number(months["count"])
        if count != int(count) or not 0 < count <= 1200:
            return None
        day = shift_months(start.date(), int(count) * (12 if months["unit"] == "year" else 1))
        return set_time(day, 9, 0, now), False
    except (DurationError, ValueError):
        return None


def find_day(rest, now):
    """The day that the words name, or None."""
    today = now.date()
    near = {"today": 0, "now": 0, "tomorrow": 1, "the day after tomorrow": 2, "day after tomorrow": 2, "next week": 7}
    if rest in near:
        return today + datetime.timedelta(days=near[rest])
    length = find_length(rest, now)
    if length:
        return length[0].date()
    weekday = WEEKDAY.fullmatch(rest.removeprefix("on "))
    if weekday:
        ahead = (WEEKDAYS.split().index(weekday["day"]) - today.weekday()) % 7 or 7
        next_week = weekday["which"] == "next" and today.weekday() + ahead < 7  # this week's is not the next one
        return today + datetime.timedelta(days=ahead + (7 if next_week or weekday["week"] else 0))
    if rest in ("weekend", "this weekend", "next weekend", "next month"):
        return parse_period(rest, now)[0].date()
    if rest in FEASTS:
        day = datetime.date(today.year, *FEASTS[rest])
        return day if day >= today else day.replace(year=today.year + 1)
    of_month = re.fullmatch(r"(?:the )?(\d{1,2})(?:st|nd|rd|th)", rest)
    if of_month:
        return find_day_of_month(int(of_month[1]), today)
    return find_date(rest, now)


def find_day_of_month(number, today):
    """The next day of that number, or None where no month has it."""
    for months in range(3):
        month = shift_months(today.replace(day=1), months)
        try:
            day = month.replace(day=number)
        except ValueError:
            continue
        if day >= today:
            return day
    return None


def find_date(text, now):
    """What dateparser makes of a date with its month."""
    try:
        import dateparser
    except ImportError as error:
        raise UserError(f'dates need dateparser. Received: {error}. pip install "tf_llm[assistant]"') from error
    settings = {
        "PREFER_DATES_FROM": "future",
        "RELATIVE_BASE": now.replace(tzinfo=None),
        "REQUIRE_PARTS": ["day", "month"],
        "PARSERS": ["absolute-time"],  # the relative ones are read here, and a bare number is no time stamp
    }
    found = dateparser.parse(re.sub(r"\bthe (?=\d)", "", text), languages=["en"], settings=settings)
    return found.date() if found else None


def shift_months(day, months):
    """The day so many months later; the last of a month that is shorter."""
    count = day.year * 12 + day.month - 1 + months
    for number in (day.day, 30, 29, 28):
        try:
            return datetime.date(count // 12, count % 12 + 1, number)
        except ValueError:
            continue
    raise AssertionError("a month has 28 days")


def set_time(day, hour, minute, now):
    """The moment of a day, in the time zone of `now`."""
    return datetime.datetime(day.year, day.month, day.day, hour, minute, tzinfo=now.tzinfo)


def refuse(what, expected, text):
    """The error about a text."""
    return DateError(f"{what} is expected to be {expected}. Received: {text[:LONGEST]!r}")


def format_day(day):
    """A day as people read it.

    >>> format_day(datetime.date(2026, 11, 30))
    'Monday, 30 November 2026'
    """
    return f"{day:%A}, {day.day} {day:%B} {day.year}"


def format_moment(moment):
    """A moment as people read it.

    >>> format_moment(datetime.datetime(2026, 11, 30, 9, 5))
    'Monday, 30 November 2026, 09:05'
    """
    return f"{format_day(moment)}, {moment:%H:%M}"
