"""Events in a file of the format iCalendar (https://www.rfc-editor.org/rfc/rfc5545), which other calendars read.

The file is read anew for each question, since other programs may write it; it is written whole or not at all. One that
this module does not understand in every line is refused, never overwritten: writing it again would lose that line.
"""

import datetime
import uuid
from pathlib import Path
from typing import NamedTuple

from tf_llm.contracts import UserError
from tf_llm.files import lock_folder, write_atomically

BUSY = ("SECONDLY", "MINUTELY", "HOURLY")  # repetitions that no calendar of a person has, and that take forever to list


class Event(NamedTuple):
    """One event, or one of its repetitions."""

    uid: str
    title: str
    begin: datetime.datetime  # aware
    end: datetime.datetime
    place: str = ""
    repeated: bool = False


class Calendar:
    """The file.

    Args:
        path: of the file, which is made with the first event.
        zone: a tzinfo, in which a day without a time begins.

    Raises:
        UserError: the packages are missing, or what lies there is damaged.
    """

    def __init__(self, path, zone=datetime.UTC):
        try:
            import icalendar
            import recurring_ical_events
        except ImportError as error:
            raise UserError(
                f"a calendar needs icalendar and recurring-ical-events. Received: {error}. "
                'pip install "tf_llm[assistant]"'
            ) from error
        self._format, self._repetitions = icalendar, recurring_ical_events
        self._path, self._zone = Path(path), zone
        self._read()

    def _read(self):
        """What the file holds, as icalendar's objects."""
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            calendar = self._format.Calendar()
            calendar.add("prodid", "-//tf_llm//assistant//EN")
            calendar.add("version", "2.0")
            return calendar
        except OSError as error:
            raise self._refuse(error.strerror or str(error)) from error
        try:
            content.decode("utf-8")
            calendar = self._format.Calendar.from_ical(content)
        except ValueError as error:
            raise self._refuse(str(error)[:200]) from error
        if calendar.name != "VCALENDAR":
            raise self._refuse(f"a {calendar.name}")
        for part in calendar.walk():
            for name, fault in part.errors:
                raise self._refuse(f"{name or 'a line'}: {fault}"[:200])
            if part.name == "VEVENT" and "DTSTART" not in part:
                raise self._refuse("an event without a beginning")
            rules = part.get("RRULE", [])
            for rule in rules if isinstance(rules, list) else [rules]:
                if set(rule.get("FREQ", [])) & set(BUSY):
                    raise self._refuse("an event that is repeated within a day")
        return calendar

    def _refuse(self, received):
        return UserError(
            f"expected a calendar (.ics) in {self._path}. Received: {received}. "
            "It was not touched: restore it from a backup, mend it, or name another file"
        )

    def add(self, title, begin, length, place=None):
        """Adds an event.

        Args:
            title: what it is.
            begin: an aware datetime.
            length: a datetime.timedelta.
            place: where, or None.

        Returns:
            Its uid.

        Raises:
            UserError: the file is damaged, or cannot be written.
        """
        event = self._format.Event()
        event.add("uid", uuid.uuid4().hex)
        event.add("dtstamp", datetime.datetime.now(datetime.UTC))
        event.add("dtstart", begin.astimezone(datetime.UTC))
        event.add("dtend", (begin + length).astimezone(datetime.UTC))
        event.add("summary", title)
        if place:
            event.add("location", place)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with lock_folder(self._path.parent):
            calendar = self._read()
            calendar.add_component(event)
            write_atomically(self._path, calendar.to_ical())
        return str(event["UID"])

    def list(self, begin, end):
        """The events between two aware datetimes, soonest first; of repeated ones, each time."""
        calendar, events = self._read(), []
        series = {str(event.get("UID")) for event in calendar.walk("VEVENT") if "RRULE" in event or "RDATE" in event}
        for each in self._repetitions.of(calendar).between(begin, end):
            first, last = self._localise(each["DTSTART"].dt), each.get("DTEND")
            last = self._localise(last.dt) if last is not None else first
            uid, title = str(each.get("UID")), str(each.get("SUMMARY", "without a title"))
            events.append(Event(uid, title, first, last, str(each.get("LOCATION", "")), uid in series))
        return sorted(events, key=lambda event: (event.begin, event.title))

    def _localise(self, moment):
        """A day, or a time without a zone, in the zone of this calendar."""
        if not isinstance(moment, datetime.datetime):
            moment = datetime.datetime(moment.year, moment.month, moment.day)
        return moment.replace(tzinfo=self._zone) if moment.tzinfo is None else moment.astimezone(self._zone)

    def remove(self, uid):
        """Removes an event, of a repeated one every time; returns whether it was there."""
        with lock_folder(self._path.parent):
            calendar = self._read()
            found = [part for part in calendar.subcomponents if part.name == "VEVENT" and str(part.get("UID")) == uid]
            for part in found:
                calendar.subcomponents.remove(part)
            if found:
                write_atomically(self._path, calendar.to_ical())
        return bool(found)
