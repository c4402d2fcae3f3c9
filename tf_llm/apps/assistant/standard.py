"""The toolbox that comes with the assistant."""

import datetime

from tf_llm.apps.assistant.answers import AnswerTools
from tf_llm.apps.assistant.house import HouseTools
from tf_llm.apps.assistant.personal import PersonalTools
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
