"""The toolbox that comes with the assistant."""

import datetime
from pathlib import Path

from tf_llm.apps.assistant.answers import AnswerTools
from tf_llm.apps.assistant.calendar import Calendar
from tf_llm.apps.assistant.home import HomeAssistant, SimulatedHome
from tf_llm.apps.assistant.house import HouseTools
from tf_llm.apps.assistant.personal import PersonalTools
from tf_llm.apps.assistant.store import Store
from tf_llm.apps.assistant.tools import Toolbox, list_tools
from tf_llm.contracts import UserError


def build_toolbox(store, calendar, home, now, others=(), unit="degC"):
    """The allow-list of an assistant: everything that comes with it, and what you add.

    Args:
        store: a `Store`.
        calendar: a `Calendar`.
        home: a `HomeAssistant` or a `SimulatedHome`.
        now: () -> an aware datetime, in the zone of the person.
        others: further functions that `tool` has marked.
        unit: of the temperatures in the house, "degC" or "degF".

    Returns:
        A `Toolbox`.
    """
    owners = (PersonalTools(store, calendar, now), HouseTools(home, unit), AnswerTools(now))
    return Toolbox([*(each for owner in owners for each in list_tools(owner)), *others])


def open_toolbox(folder, house=None, token=""):
    """The toolbox of one person, who is in the zone of this machine.

    Args:
        folder: where reminders, lists, notes and the calendar are kept; made if need be.
        house: the address of a Home Assistant, or None for a simulated house.
        token: what that one asks for.

    Returns:
        A `Toolbox`; the clock that it goes by; and a function without arguments -> texts of the reminders and timers
        whose time has come, each given once.
    """
    folder, zone = Path(folder), find_zone()
    now, store = make_clock(zone), Store(folder / "assistant.sqlite")
    home = HomeAssistant(house, token) if house else SimulatedHome()

    def list_due():
        due = zip(("Reminder", "Timer"), store.take_due(now()), strict=True)
        return [f"{kind}: {entry.text}" for kind, entries in due for entry in entries]

    return build_toolbox(store, Calendar(folder / "calendar.ics", zone), home, now), now, list_due


def find_zone():
    """The time zone of this machine, as a tzinfo that knows when its clocks change.

    Raises:
        UserError: the package that knows is missing.
    """
    try:
        import tzlocal
    except ImportError as error:
        raise UserError(f'the time zone needs tzlocal. Received: {error}. pip install "tf_llm[assistant]"') from error
    return tzlocal.get_localzone()


def make_clock(zone):
    """() -> the time in a zone."""
    return lambda: datetime.datetime.now(zone)
