"""Tools for a house: lights and thermostats, by room."""

import re

from tf_llm.apps.assistant.slots import Color, Degrees, Name, Percentage
from tf_llm.apps.assistant.tools import ToolError, tool

COLDEST, WARMEST = 5.0, 35.0  # °C that a thermostat is set to at most


class HouseTools:
    """Tools that act on a house.

    Args:
        home: a `HomeAssistant` or a `SimulatedHome`.
        unit: of its temperatures, "degC" or "degF".
    """

    def __init__(self, home, unit="degC"):
        self._home, self._unit = home, unit

    def _find(self, domain, room):
        """The entities of a kind in a room, or in the whole house: those whose name has every word of the room's."""
        states = [state for state in self._home.states() if state["entity_id"].startswith(f"{domain}.")]
        if room is None or room in ("house", "whole house", "everywhere"):
            found = states
        else:
            wanted = set(split_name(room))
            found = [state for state in states if wanted <= set(split_name(name_state(state)))]
        if not found:
            known = ", ".join(sorted(name_state(state) for state in states)[:20]) or "none"
            kind = {"light": "light", "climate": "thermostat"}[domain]
            raise ToolError(f"a {kind} is expected to be one of {known}. Received: {room or 'all of them'}")
        return found

    def _act(self, domain, service, room, data):
        entities = self._find(domain, room)
        for state in entities:
            self._home.call(domain, service, {"entity_id": state["entity_id"], **data})
        return ", ".join(name_state(state) for state in entities)

    @tool(ask="Turn the light on?")
    def turn_on_light(self, room: Name | None = None):
        """Turns on the lights of a room, or all of them."""
        return f"On: {self._act('light', 'turn_on', room, {})}."

    @tool(ask="Turn the light off?")
    def turn_off_light(self, room: Name | None = None):
        """Turns off the lights of a room, or all of them."""
        return f"Off: {self._act('light', 'turn_off', room, {})}."

    @tool(ask="Set the brightness?")
    def set_brightness(self, level: Percentage, room: Name | None = None):
        """Dims the lights of a room, or all of them."""
        if level == 0:
            return self.turn_off_light(room)
        return f"At {level:g} %: {self._act('light', 'turn_on', room, {'brightness_pct': round(level)})}."

    @tool(ask="Change the colour of the light?")
    def set_color(self, color: Color, room: Name | None = None):
        """Gives the lights of a room, or all of them, a colour."""
        return f"In {color}: {self._act('light', 'turn_on', room, {'color_name': color})}."

    @tool(ask="Set the temperature?")
    def set_temperature(self, temperature: Degrees, room: Name | None = None):
        """Sets the thermostats of a room, or all of them."""
        value = self._check(convert_degrees(temperature, self._unit))
        return f"At {value:g}°: {self._act('climate', 'set_temperature', room, {'temperature': value})}."

    @tool(ask="Make it warmer?")
    def raise_temperature(self, amount: Degrees | None = None, room: Name | None = None):
        """Makes a room warmer, by one degree if nobody says how much."""
        return self._shift(amount, room, 1)

    @tool(ask="Make it cooler?")
    def lower_temperature(self, amount: Degrees | None = None, room: Name | None = None):
        """Makes a room cooler, by one degree if nobody says how much."""
        return self._shift(amount, room, -1)

    @tool
    def get_temperature(self, room: Name | None = None):
        """Says how warm it is, and what the thermostats are set to."""
        lines = []
        for state in self._find("climate", room):
            now, wanted = (state["attributes"].get(key, "unknown") for key in ("current_temperature", "temperature"))
            lines.append(f"{name_state(state)}: it is {now}°, set to {wanted}°")
        return "\n".join(lines)

    def _check(self, value):
        celsius = value if self._unit == "degC" else (value - 32) / 1.8
        if not COLDEST <= celsius <= WARMEST:
            raise ToolError(
                f"a temperature is expected to be from {COLDEST:g} to {WARMEST:g} °C. Received: {celsius:g} °C"
            )
        return value

    def _shift(self, amount, room, direction):
        step, done = 1.0, []
        if amount is not None:
            step = abs(amount.value)
            if amount.unit not in (None, self._unit):
                step *= 1.8 if self._unit == "degF" else 1 / 1.8
        wanted = []
        for state in self._find("climate", room):
            current = state["attributes"].get("temperature")
            if isinstance(current, int | float):
                wanted.append((state, self._check(current + direction * step)))
        if not wanted:
            raise ToolError("a thermostat is expected to say what it is set to. Received: none that does")
        for state, value in wanted:
            self._home.call("climate", "set_temperature", {"entity_id": state["entity_id"], "temperature": value})
            done.append(f"{name_state(state)} at {value:g}°")
        return f"Set: {', '.join(done)}."


def name_state(state):
    """What people call an entity."""
    return str(state["attributes"].get("friendly_name") or state["entity_id"].partition(".")[2].replace("_", " "))


def split_name(name):
    """The words of a name, in small letters."""
    return re.findall(r"[^\W_]+", name.lower().replace("'", ""))


def convert_degrees(degrees, unit):
    """The number of a temperature in the unit of the house.

    >>> convert_degrees(Degrees(68.0, "degF"), "degC"), convert_degrees(Degrees(21.0, None), "degC")
    (20.0, 21.0)
    """
    if degrees.unit in (None, unit):
        return degrees.value
    return round(degrees.value * 1.8 + 32 if unit == "degF" else (degrees.value - 32) / 1.8, 1)
