"""Tools that answer out of themselves: sums, the date and the time, units."""

from tf_llm.apps.assistant.calculator import format_number
from tf_llm.apps.assistant.dates import format_day
from tf_llm.apps.assistant.slots import Day, Expression, Quantity, Unit
from tf_llm.apps.assistant.tools import ToolError, tool
from tf_llm.apps.assistant.units import UnitError, convert, show


class AnswerTools:
    """Tools that change nothing.

    Args:
        now: () -> an aware datetime, in the zone of the person.
    """

    def __init__(self, now):
        self._now = now

    @tool
    def calculate(self, expression: Expression):
        """Says what a sum makes."""
        value = format_number(expression.value)
        return f"{expression.text.rstrip(' =?')} {'' if value.startswith('≈') else '= '}{value}"

    @tool
    def tell_time(self):
        """Says what time it is."""
        return f"It is {self._now():%H:%M}."

    @tool
    def tell_date(self, time: Day | None = None):
        """Says which day it is, today or at some time."""
        return f"{'That is' if time else 'Today is'} {format_day(time or self._now().date())}."

    @tool
    def days_until(self, time: Day):
        """Says how many days it is until a day."""
        days = (time - self._now().date()).days
        return f"{days:,} day{'' if days == 1 else 's'} until {format_day(time)}."

    @tool
    def convert_units(self, quantity: Quantity, unit: Unit):
        """Says how much a quantity is in another unit."""
        try:
            value = convert(quantity.parts, unit)
        except UnitError as error:
            raise ToolError(str(error)) from error
        return f"{quantity.text} = {format_number(float(f'{value:.6g}'), 6).removeprefix('≈ ')} {show(unit)}"
