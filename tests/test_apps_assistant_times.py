"""Days, times and lengths of time, as they are said."""

import contextlib
import datetime
import random
import time

import pytest

pytest.importorskip("dateparser", reason="needs the extra: pip install 'tf_llm[assistant]'")

from assisting import MONDAY

from tf_llm.apps.assistant.dates import DateError, parse_day, parse_moment, parse_period
from tf_llm.apps.assistant.durations import DurationError, parse_duration

WORDS = "in at on the next half past to of twelve 5th 31 99 0 am pm : . week friday may morning years 1e9 -5 ² é \0"


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("at half past six", "2026-11-30 18:30"),
        ("at three", "2026-12-01 03:00"),
        ("at 3 pm", "2026-12-01 15:00"),
        ("at a quarter to nine in the evening", "2026-11-30 20:45"),
        ("twenty to 5 tomorrow", "2026-12-01 16:40"),
        ("7.30 a.m.", "2026-12-01 07:30"),
        ("tomorrow at twelve thirty pm", "2026-12-01 12:30"),
        ("at 12 am", "2026-12-01 00:00"),
        ("tonight", "2026-11-30 21:00"),
        ("tonight at midnight", "2026-12-01 00:00"),
        ("tonight at 5.30 a.m.", "2026-12-01 05:30"),
        ("this afternoon", "2026-11-30 17:00"),
        ("first thing tomorrow", "2026-12-01 08:00"),
        ("tomorrow lunchtime", "2026-12-01 12:00"),
        ("8 on Tuesday", "2026-12-01 08:00"),
        ("friday 7 pm", "2026-12-04 19:00"),
        ("on Friday evening at six", "2026-12-04 18:00"),
        ("next friday", "2026-12-11 09:00"),
        ("monday", "2026-12-07 09:00"),
        ("monday week", "2026-12-14 09:00"),
        ("the day after tomorrow", "2026-12-02 09:00"),
        ("in ten minutes", "2026-11-30 16:30"),
        ("an hour and a half from now", "2026-11-30 17:50"),
        ("in five days at 3 thirty", "2026-12-05 15:30"),
        ("on the twenty-first at noon", "2026-12-21 12:00"),
        ("on the 31st", "2026-12-31 09:00"),
        ("on 5th of May at 8", "2027-05-05 08:00"),
        ("May the third, 2028 at 9:05pm", "2028-05-03 21:05"),
        ("2027-03-05 at 10:30", "2027-03-05 10:30"),
        ("on new year’s eve at 11 pm", "2026-12-31 23:00"),
        ("in three months", "2027-02-28 09:00"),
        ("at the weekend", "2026-12-05 09:00"),
    ],
)
def test_moments(text, moment):
    assert parse_moment(text, MONDAY) == datetime.datetime.fromisoformat(moment).replace(tzinfo=MONDAY.tzinfo)


@pytest.mark.parametrize(
    ("text", "begin", "end"),
    [
        ("today", "2026-11-30 00:00", "2026-12-01 00:00"),
        ("this week", "2026-11-30 00:00", "2026-12-07 00:00"),
        ("this weekend", "2026-12-05 00:00", "2026-12-07 00:00"),
        ("next month", "2026-12-01 00:00", "2027-01-01 00:00"),
        ("tomorrow morning", "2026-12-01 05:00", "2026-12-01 12:00"),
        ("tonight", "2026-11-30 18:00", "2026-12-01 00:00"),
        ("for friday", "2026-12-04 00:00", "2026-12-05 00:00"),
        ("tomorrow at six", "2026-12-01 18:00", "2026-12-01 19:00"),
        ("on the 3rd of March", "2027-03-03 00:00", "2027-03-04 00:00"),
    ],
)
def test_periods(text, begin, end):
    assert [f"{moment:%Y-%m-%d %H:%M}" for moment in parse_period(text, MONDAY)] == [begin, end]


def test_days():
    for text, day in {
        "in three weeks": "2026-12-21",
        "christmas": "2026-12-25",
        "halloween": "2027-10-31",
        "a week from tomorrow": "2026-12-08",
        "in 2 years": "2028-11-30",
        "today": "2026-11-30",
    }.items():
        assert str(parse_day(text, MONDAY)) == day


def test_minutes_are_minutes_when_the_clocks_change():
    before = datetime.datetime(2027, 3, 28, 1, 50, tzinfo=MONDAY.tzinfo)  # ten minutes before summer time
    assert str(parse_moment("in twenty minutes", before)) == "2027-03-28 03:10:00+02:00"
    assert str(parse_moment("tomorrow", before)) == "2027-03-29 09:00:00+02:00"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("soon", "a moment is expected to be like “tomorrow at six”. Received: 'soon'"),
        ("", "a moment is expected to be like “tomorrow at six”. Received: ''"),
        ("on the 32nd", "a moment is expected to be like “tomorrow at six”. Received: 'on the 32nd'"),
        ("today at three", "a moment is expected to be in the future. Received: 'today at three'"),
        ("at 99", "a time is expected to be one that a clock shows. Received: 99:00, in 'at 99'"),
        ("at 13 pm", "a time is expected to be one that a clock shows. Received: 13:00 pm, in 'at 13 pm'"),
        ("x" * 101, f"a time is expected to be of at most 100 characters. Received: {'x' * 100!r}"),
    ],
)
def test_what_is_no_moment_is_refused(text, message):
    with pytest.raises(DateError) as error:
        parse_moment(text, MONDAY)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("an hour and a half", 5400),
        ("two and a half hours", 9000),
        ("1 h 30", 5400),
        ("one hour thirty", 5400),
        ("three quarters of an hour", 2700),
        ("a quarter of an hour", 900),
        ("half a minute", 30),
        ("a couple of minutes", 120),
        ("fifty-five-minute", 3300),
        ("5-minute", 300),
        ("90s", 90),
        ("2 days, 3 hours and 4 minutes", 183_840),
        ("a fortnight", 1_209_600),
    ],
)
def test_lengths_of_time(text, seconds):
    assert parse_duration(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "ten", "and", "0 minutes", "11 years", "two days and three", "9e9 days"])
def test_what_is_no_length_of_time_is_refused(text):
    with pytest.raises(DurationError, match=r"expected to be like “ten minutes”, up to ten years\. Received: "):
        parse_duration(text)


def test_any_text_gives_a_time_or_a_typed_error_soon():
    draw, words = random.Random(3), WORDS.split()
    parse_day("5 may", MONDAY)  # dateparser loads its languages
    for _ in range(200):
        text, start = " ".join(draw.choices(words, k=draw.randrange(9))), time.process_time()
        for read in (parse_moment, parse_day, parse_period):
            with contextlib.suppress(DateError):
                read(text, MONDAY)
        assert time.process_time() - start < 1.0, text
