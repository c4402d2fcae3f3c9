"""What an assistant can do: Python functions that were marked as tools and put on a list. Nothing else is ever called.

    @tool(ask="Water the garden?")
    def water_garden(duration: Duration, zone: Name | None = None):
        \"\"\"Opens the valves.\"\"\"
        …
        return "The water is running."

    toolbox = Toolbox([water_garden])

The annotations say what the words of each slot have to mean (slots.py); an argument without a default is required. With
`ask`, the tool changes something, so that it is called only after a yes. A tool answers with what is to be said, or
raises a `ToolError` about what it could not do.
"""

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable

from tf_llm.apps.assistant.slots import SLOT_TYPES


class ToolError(ValueError):
    """A tool could not do what it was asked; the text is said to the person."""


class MissingSlotError(ToolError):
    """A required slot was not filled, or with words that it can make nothing of."""

    def __init__(self, message, slot):
        super().__init__(message)
        self.slot = slot


@dataclasses.dataclass(frozen=True)
class Tool:
    """A function that may be called, and what is known of it."""

    function: Callable
    name: str
    slots: dict[str, object]  # slot -> the type that SLOT_TYPES knows
    required: tuple[str, ...]
    ask: str | None  # the question before it is called; None: it changes nothing

    @property
    def changes(self):
        """Whether it changes something, and so asks first."""
        return self.ask is not None


@dataclasses.dataclass(frozen=True)
class Task:
    """A call whose words have got their meaning: what would be done by `run`."""

    tool: Tool
    values: dict[str, object]  # slot -> value

    def run(self):
        """Does it, and returns what is to be said."""
        return str(self.tool.function(**self.values))

    def describe(self):
        """What would be done, for the person to check."""
        question = self.tool.ask or f"{self.tool.name.replace('_', ' ').capitalize()}?"
        shown = [f"{slot}: {SLOT_TYPES[self.tool.slots[slot]].show(value)}" for slot, value in self.values.items()]
        return f"{question} ({'; '.join(shown)})" if shown else question


def tool(function=None, *, ask=None):
    """Marks a function, or a method, as a tool.

    Args:
        function: its annotations are types that SLOT_TYPES knows, optional ones with `| None` and the default None.
        ask: the question before it is called, for one that changes something.

    Raises:
        ValueError: an argument has no annotation, or one that no slot has.

    >>> @tool
    ... def double(number: float):
    ...     return f"{2 * number:g}"
    >>> double.tool.slots, double.tool.changes, double(4)
    ({'number': <class 'float'>}, False, '8')
    """
    if function is None:
        return lambda decorated: tool(decorated, ask=ask)
    hints, slots, required = typing.get_type_hints(function), {}, []
    for name, parameter in inspect.signature(function).parameters.items():
        if name == "self":
            continue
        hint = hints.get(name)
        if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
            hint = next(option for option in typing.get_args(hint) if option is not type(None))
        if hint not in SLOT_TYPES or parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            known = ", ".join(sorted(each.__name__ for each in SLOT_TYPES))
            raise ValueError(
                f"{function.__name__}: the annotation of {name} is expected to be one of {known}. Received: {hint}"
            )
        slots[name] = hint
        if parameter.default is parameter.empty:
            required.append(name)
    function.tool = Tool(function, function.__name__, slots, tuple(required), ask)
    return function


def list_tools(owner):
    """The methods of an object that are marked as tools, in the order of its class."""
    return [getattr(owner, name) for name, each in vars(type(owner)).items() if hasattr(each, "tool")]


class Toolbox:
    """The allow-list: the tools that may be called, by their names.

    Args:
        functions: those that `tool` has marked.

    Raises:
        ValueError: one is not marked, or there are two of a name.
    """

    def __init__(self, functions):
        self._tools = {}
        for function in functions:
            marked = getattr(function, "tool", None)
            if marked is None:
                raise ValueError(f"a tool is expected to be marked with @tool. Received: {function!r}")
            if marked.name in self._tools:
                raise ValueError(f"the names of tools are expected to differ. Received: {marked.name} twice")
            self._tools[marked.name] = dataclasses.replace(marked, function=function)  # bound, if it is a method

    def __iter__(self):
        return iter(self._tools.values())

    def __contains__(self, name):
        return name in self._tools

    def __getitem__(self, name):
        return self._tools[name]

    def prepare(self, call, now):
        """A call becomes a `Task`: the tool is found, and the words of its slots get their meaning. Nothing is done.

        Args:
            call: a `Call`.
            now: an aware datetime, from which "tomorrow" is counted.

        Raises:
            ToolError: there is no such tool or slot, or a slot was filled twice.
            MissingSlotError: a required slot is not filled, or the words mean nothing there.
        """
        if call.name not in self._tools:
            raise ToolError(
                f"a tool is expected to be one of {', '.join(sorted(self._tools))}. Received: {call.name!r}"
            )
        chosen, values = self._tools[call.name], {}
        for slot, words in call.arguments:
            if slot not in chosen.slots or slot in values:
                known = ", ".join(chosen.slots) or "none"
                raise ToolError(f"a slot of {call.name} is expected to be one of {known}, once. Received: {slot!r}")
            try:
                values[slot] = SLOT_TYPES[chosen.slots[slot]].read(words, now)
            except ValueError as error:
                raise MissingSlotError(str(error), slot) from error
        for slot in chosen.required:
            if slot not in values:
                raise MissingSlotError(f"{slot.replace('_', ' ')} is expected for {call.name}. Received: nothing", slot)
        return Task(chosen, values)
