"""Tools for one person: reminders, alarms, to-dos, notes, timers and the calendar."""

import datetime

from tf_llm.apps.assistant.dates import format_moment
from tf_llm.apps.assistant.durations import format_duration
from tf_llm.apps.assistant.house import split_name
from tf_llm.apps.assistant.slots import Duration, Moment, Name, Period, Text
from tf_llm.apps.assistant.tools import ToolError, tool

ALARM = "alarm"  # the text of a reminder that is one
TODOS = "to-do"  # the list of what was put on none
USUAL = datetime.timedelta(hours=1)  # that an event takes
SHOWN = 20  # lines at most


class PersonalTools:
    """Tools that keep things for a person.

    Args:
        store: a `Store`.
        calendar: a `Calendar`.
        now: () -> an aware datetime, in the zone of the person.
    """

    def __init__(self, store, calendar, now):
        self._store, self._calendar, self._now = store, calendar, now

    def _show(self, moment):
        return format_moment(moment.astimezone(self._now().tzinfo))

    # --- Reminders ---

    @tool(ask="Set this reminder?")
    def set_reminder(self, text: Text, time: Moment):
        """Reminds of something at a moment."""
        self._store.add_reminder(text, time)
        return f"I will remind you of “{text}” on {self._show(time)}."

    @tool(ask="Set an alarm?")
    def set_alarm(self, time: Moment):
        """Rings at a moment."""
        self._store.add_reminder(ALARM, time)
        return f"The alarm is set for {self._show(time)}."

    @tool
    def list_reminders(self, time: Period | None = None):
        """Says which reminders there are."""
        entries = self._store.list_reminders(*(time or ()))
        return write_list("reminders", [f"{self._show(entry.time)}: {entry.text}" for entry in entries])

    @tool(ask="Delete this reminder?")
    def delete_reminder(self, text: Text):
        """Deletes the reminder of something."""
        entry = pick(text, self._store.list_reminders(), "a reminder")
        self._store.remove("reminders", entry.id)
        return f"Deleted: “{entry.text}” on {self._show(entry.time)}."

    # --- To-dos ---

    @tool(ask="Put this on the list?")
    def add_todo(self, item: Text, list: Name | None = None):
        """Puts something on a list."""
        self._store.add_todo(item, name_list(list))
        return f"“{item}” is on your {name_list(list)} list."

    @tool
    def list_todos(self, list: Name | None = None):
        """Says what is on a list, or on all of them."""
        entries = self._store.list_todos(name_list(list) if list else None)
        what = f"things on your {name_list(list)} list" if list else "things to do"
        return write_list(what, [entry.text if list else f"{entry.text} ({entry.list})" for entry in entries])

    @tool(ask="Mark this as done?")
    def complete_todo(self, item: Text, list: Name | None = None):
        """Ticks something off."""
        entry = pick(item, self._store.list_todos(name_list(list) if list else None), "something to do")
        self._store.complete_todo(entry.id)
        return f"Done: “{entry.text}”."

    @tool(ask="Take this off the list?")
    def delete_todo(self, item: Text, list: Name | None = None):
        """Takes something off a list, undone."""
        entry = pick(item, self._store.list_todos(name_list(list) if list else None), "something to do")
        self._store.remove("todos", entry.id)
        return f"“{entry.text}” is off your {entry.list} list."

    # --- Notes ---

    @tool(ask="Save this note?")
    def add_note(self, text: Text):
        """Writes something down."""
        self._store.add_note(text, self._now())
        return f"Noted: “{text}”."

    @tool
    def find_notes(self, text: Text | None = None):
        """Says what was written down, about something or at all."""
        notes = self._store.list_notes()
        notes = [note for note in notes if text is None or is_about(text, note.text)]
        return write_list("notes", [note.text for note in notes])

    @tool(ask="Delete this note?")
    def delete_note(self, text: Text):
        """Deletes the note about something."""
        note = pick(text, self._store.list_notes(), "a note")
        self._store.remove("notes", note.id)
        return f"Deleted: “{note.text}”."

    # --- Timers ---

    @tool(ask="Start a timer?")
    def set_timer(self, duration: Duration, name: Name | None = None):
        """Starts a timer."""
        self._store.add_timer(name or "timer", self._now() + duration)
        return f"{(name or 'timer').capitalize()}: {format_duration(duration)}, from now on."

    @tool
    def check_timers(self, name: Name | None = None):
        """Says how much time is left."""
        timers = [each for each in self._store.list_timers() if name is None or is_about(name, each.text)]
        now, none = self._now(), datetime.timedelta()
        return write_list("timers", [f"{each.text}: {format_duration(max(each.time - now, none))}" for each in timers])

    @tool(ask="Stop the timer?")
    def cancel_timer(self, name: Name | None = None):
        """Stops a timer."""
        timers = self._store.list_timers()
        entry = timers[0] if name is None and len(timers) == 1 else pick(name, timers, "a timer")
        self._store.remove("timers", entry.id)
        return f"Stopped: {entry.text}."

    # --- The calendar ---

    @tool(ask="Put this in the calendar?")
    def add_event(self, title: Text, time: Moment, place: Text | None = None, duration: Duration | None = None):
        """Adds an event to the calendar, of an hour if nobody says how long."""
        self._calendar.add(title, time, duration or USUAL, place)
        return f"“{title}” is in your calendar: {self._show(time)}{f', {place}' if place else ''}."

    @tool
    def list_events(self, time: Period | None = None):
        """Says what is in the calendar, in a period or in the next two weeks."""
        begin, end = time or (self._now(), self._now() + datetime.timedelta(weeks=2))
        return write_list("events", [self._write_event(event) for event in self._calendar.list(begin, end)])

    @tool(ask="Delete this event?")
    def delete_event(self, title: Text, time: Period | None = None):
        """Deletes an event that is to come."""
        begin, end = time or (self._now(), self._now() + datetime.timedelta(days=400))
        event = pick(title, self._calendar.list(begin, end), "an event", lambda each: each.title)
        if event.repeated:
            raise ToolError(f"“{event.title}” is repeated: delete it where you made it, this would delete every one")
        self._calendar.remove(event.uid)
        return f"Deleted: {self._write_event(event)}."

    def _write_event(self, event):
        return f"{self._show(event.begin)}: {event.title}{f', {event.place}' if event.place else ''}"


def name_list(name):
    """The name under which a list is kept.

    >>> name_list("groceries"), name_list(None), name_list("todo")
    ('shopping', 'to-do', 'to-do')
    """
    same = {None: TODOS, "todo": TODOS, "to do": TODOS, "grocery": "shopping", "groceries": "shopping"}
    return same.get(name, name)


def write_list(what, lines):
    """Lines for the person, or that there are none."""
    if not lines:
        return f"There are no {what}."
    what = what if len(lines) > 1 else what.replace("things", "thing").removesuffix("s")
    more = [f"… and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return "\n".join([f"{len(lines)} {what}:", *lines[:SHOWN], *more])


def is_about(words, text):
    """Whether a text has every one of the words, but for articles."""
    wanted = set(split_name(words)) - {"the", "a", "an", "my", "our"}
    return bool(wanted) and wanted <= set(split_name(text))


def pick(words, entries, what, read=lambda entry: entry.text):
    """The one entry that is meant: of that very text, or with all of these words.

    Raises:
        ToolError: there is none, or there are several.
    """
    if words is None:
        words, found = "any", entries
    else:
        same = [entry for entry in entries if read(entry).casefold() == words.casefold()]
        found = same[:1] or [entry for entry in entries if is_about(words, read(entry))]
    if len(found) != 1:
        shown = "; ".join(f"“{read(entry)}”" for entry in (found or entries)[:5]) or "there is none"
        count = "several" if found else "none"
        raise ToolError(f"{what} is expected to be one of {shown}. Received: “{words}”, which is {count}")
    return found[0]
