"""Events in an ICS file: those of other programs survive, a damaged file is never overwritten."""

import datetime

import pytest

pytest.importorskip("icalendar", reason="needs the extra: pip install 'tf_llm[assistant]'")
pytest.importorskip("recurring_ical_events", reason="needs the extra: pip install 'tf_llm[assistant]'")

from assisting import MONDAY

from tf_llm.apps.assistant.calendar import Calendar
from tf_llm.contracts import UserError

HOUR, DAY = datetime.timedelta(hours=1), datetime.timedelta(days=1)
OTHERS = """BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//someone else//
X-WR-CALNAME:Work
BEGIN:VEVENT
UID:standup
DTSTAMP:20261101T000000Z
DTSTART;TZID=Europe/Berlin:20261102T093000
DTEND;TZID=Europe/Berlin:20261102T094500
RRULE:FREQ=WEEKLY;BYDAY=MO,WE
SUMMARY:Stand-up
X-COLOUR:teal
END:VEVENT
BEGIN:VEVENT
UID:holiday
DTSTAMP:20261101T000000Z
DTSTART;VALUE=DATE:20261202
SUMMARY:Holiday
END:VEVENT
END:VCALENDAR
""".replace("\n", "\r\n")


def test_events_are_there_again(tmp_path):
    calendar = Calendar(tmp_path / "new" / "c.ics", MONDAY.tzinfo)
    assert not calendar.list(MONDAY, MONDAY + DAY) and not (tmp_path / "new").exists()
    calendar.add("Dinner; “Zoë”, \\n\nline 2", MONDAY + HOUR, 2 * HOUR, "Luigi's, back room")
    calendar.add("Later", MONDAY + 2 * DAY, HOUR)
    (event,) = Calendar(tmp_path / "new" / "c.ics", MONDAY.tzinfo).list(MONDAY, MONDAY + DAY)
    assert event.title == "Dinner; “Zoë”, \\n\nline 2" and event.place == "Luigi's, back room"
    assert (event.begin, event.end) == (MONDAY + HOUR, MONDAY + 3 * HOUR) and not event.repeated
    assert calendar.remove(event.uid) and not calendar.remove(event.uid)
    assert [each.title for each in calendar.list(MONDAY, MONDAY + 9 * DAY)] == ["Later"]


def test_what_other_programs_wrote_survives(tmp_path):
    path = tmp_path / "c.ics"
    path.write_text(OTHERS, newline="")
    calendar = Calendar(path, MONDAY.tzinfo)
    events = calendar.list(MONDAY.replace(hour=0), MONDAY + 3 * DAY)
    assert [(f"{each.begin:%a %H:%M}", each.title, each.repeated) for each in events] == [
        ("Mon 09:30", "Stand-up", True),
        ("Wed 00:00", "Holiday", False),
        ("Wed 09:30", "Stand-up", True),
    ]
    calendar.remove(calendar.add("Lunch", MONDAY, HOUR))
    kept = path.read_text().splitlines()
    assert set(OTHERS.splitlines()) <= set(kept)


@pytest.mark.parametrize(
    ("old", "new", "received"),
    [
        ("END:VCALENDAR", "", "Found no components"),
        (OTHERS, "", "Found no components"),
        (OTHERS, "dear diary", "Content line could not be parsed"),
        ("DTSTART;VALUE=DATE:20261202", "DTSTART:2026", "DTSTART: "),
        ("DTSTART;VALUE=DATE:20261202\r\n", "", "an event without a beginning"),
        ("SUMMARY:Holiday", "SUMMARY", "a line: Content line could not be parsed"),
        ("FREQ=WEEKLY", "FREQ=SECONDLY", "an event that is repeated within a day"),
        ("FREQ=WEEKLY", "FREQ=SOMETIMES", "RRULE: "),
        (OTHERS, "BEGIN:VEVENT\r\nUID:1\r\nEND:VEVENT\r\n", "a VEVENT"),
        ("Stand-up", "\udcff", "codec can't decode byte"),
    ],
)
def test_a_damaged_file_is_refused_and_left_alone(tmp_path, old, new, received):
    path = tmp_path / "c.ics"
    path.write_text(OTHERS, newline="")
    calendar = Calendar(path)
    damaged = OTHERS.replace(old, new).encode(errors="surrogateescape")
    path.write_bytes(damaged)
    for act in (lambda: Calendar(path), lambda: calendar.add("x", MONDAY, HOUR), lambda: calendar.remove("standup")):
        with pytest.raises(UserError) as error:
            act()
        assert received in str(error.value)
        assert str(error.value).endswith("It was not touched: restore it from a backup, mend it, or name another file")
    assert path.read_bytes() == damaged
