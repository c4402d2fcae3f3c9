"""Quantities in other units: "10 kilometres" in "miles", "6 feet 2 inches" in "cm", "20 °C" in "fahrenheit".

The factors are pint's (https://pint.readthedocs.io), of the extra `assistant`. Its parser evaluates expressions, so it
never sees what was said: that is looked up in the table below, and pint is handed one of the names on the left.
"""

import functools
from fractions import Fraction

from tf_llm.apps.assistant.spoken_numbers import parse_number, read_number, split_words
from tf_llm.contracts import UserError

# pint's name: the names by which people call it. An "s" behind a name needs no mention.
TABLE = """
meter: metre, meter, m
kilometer: kilometre, kilometer, km
centimeter: centimetre, centimeter, cm
millimeter: millimetre, millimeter, mm
mile: mile, mi
yard: yard, yd
foot: foot, feet, ft, '
inch: inch, inches, in, "
nautical_mile: nautical mile
light_year: light year
kilogram: kilogram, kilo, kg
gram: gram, gramme, g
milligram: milligram, mg
tonne: tonne, metric ton, metric tonne, t
ton: ton, short ton
pound: pound, lb
ounce: ounce, oz
stone: stone
liter: litre, liter, l
milliliter: millilitre, milliliter, ml
centiliter: centilitre, centiliter, cl
deciliter: decilitre, deciliter, dl
gallon: gallon, gal
imperial_gallon: imperial gallon
quart: quart
pint: pint
imperial_pint: imperial pint
cup: cup
tablespoon: tablespoon, tbsp
teaspoon: teaspoon, tsp
fluid_ounce: fluid ounce, fl oz
meter ** 3: cubic metre, cubic meter
degC: degree celsius, degrees celsius, celsius, ° c, degree c, degrees c, centigrade, c
degF: degree fahrenheit, degrees fahrenheit, fahrenheit, ° f, degree f, degrees f, f
kelvin: kelvin, k
second: second, sec, s
minute: minute, min
hour: hour, hr, h
day: day
week: week
month: month
year: year
meter / second: metre per second, meter per second, metres per second, meters per second, m / s
kilometer / hour: kilometre per hour, kilometer per hour, kilometres per hour, kilometers per hour, km / h, kph, kmh
mile / hour: mile per hour, miles per hour, mph, mi / h
knot: knot, kn
bit: bit
byte: byte, b
kilobyte: kilobyte, kb
megabyte: megabyte, mb
gigabyte: gigabyte, gb
terabyte: terabyte, tb
kibibyte: kibibyte, kib
mebibyte: mebibyte, mib
gibibyte: gibibyte, gib
meter ** 2: square metre, square meter, sqm, m²
kilometer ** 2: square kilometre, square kilometer, km²
foot ** 2: square foot, square feet, sq ft
mile ** 2: square mile
acre: acre
hectare: hectare, ha
joule: joule, j
kilojoule: kilojoule, kj
kilocalorie: kilocalorie, calorie, kcal, cal
kilowatt_hour: kilowatt hour, kwh
watt: watt, w
kilowatt: kilowatt, kw
horsepower: horsepower, hp
pascal: pascal, pa
bar: bar
psi: psi
"""
UNITS = {
    tuple(form.split()): unit
    for unit, names in (line.split(": ", 1) for line in TABLE.strip().splitlines())
    for name in names.split(", ")
    for form in (name, f"{name}s")
}
SHOWN = {  # as people read it, where that is not the name with an "s"
    "degC": "°C",
    "degF": "°F",
    "foot": "feet",
    "foot ** 2": "square feet",
    "horsepower": "horsepower",
    "inch": "inches",
    "kelvin": "kelvin",
    "kilometer / hour": "kilometers per hour",
    "meter / second": "meters per second",
    "meter ** 3": "cubic meters",
    "mile / hour": "miles per hour",
    "psi": "psi",
    "stone": "stone",
}
WIDEST = max(map(len, UNITS))
LARGEST = 10**30


class UnitError(ValueError):
    """A text that names no quantity or no unit, or two that do not go together."""


@functools.cache
def load_registry():
    """pint's units. This takes a second."""
    try:
        import pint
    except ImportError as error:
        raise UserError(f'units need pint. Received: {error}. pip install "tf_llm[assistant]"') from error
    return pint.UnitRegistry()


def find_unit(words, place=0):
    """(pint's name of the unit that begins at a place among words, the place behind it), or None."""
    for width in range(WIDEST, 0, -1):
        unit = UNITS.get(tuple(words[place : place + width]))
        if unit is not None and len(words[place : place + width]) == width:
            return unit, place + width
    return None


def parse_unit(text):
    """pint's name of the unit that a text is.

    Raises:
        UnitError: there is none of that name here.

    >>> parse_unit("Miles per hour"), parse_unit("°F")
    ('mile / hour', 'degF')
    """
    words = split_words(text[:100])
    words = words[1:] if words[:1] in (["the"], ["a"], ["an"]) else words
    found = find_unit(words)
    if found is None or found[1] < len(words):
        raise UnitError(f"a unit is expected to be like “miles” or “°C”. Received: {text[:100]!r}")
    return found[0]


def parse_quantity(text):
    """The parts of a quantity: a tuple of (number, pint's name of the unit).

    Raises:
        UnitError: it has no such parts, or too large ones.

    >>> parse_quantity("six feet 2 inches"), parse_quantity("half a mile")
    (((Fraction(6, 1), 'foot'), (Fraction(2, 1), 'inch')), ((Fraction(1, 2), 'mile'),))
    """
    words, place, parts = split_words(text[:200]), 0, []
    while place < len(words):
        if parts and words[place] == "and":
            place += 1
        sign = -1 if words[place : place + 1] in (["minus"], ["negative"], ["-"], ["−"]) and not parts else 1
        place += sign < 0
        number = read_number(words, place)
        if number is None:
            half = words[place : place + 1] == ["half"]
            behind = place + half
            article = words[behind : behind + 1] in (["a"], ["an"])
            number = (Fraction(1, 2) if half else Fraction(1), behind + article) if half or article else None
        found = find_unit(words, number[1]) if number else None
        if found is None or number[0] > LARGEST:
            parts = []
            break
        parts.append((sign * number[0], found[0]))
        place = found[1]
    if not parts:
        raise UnitError(
            f"a quantity is expected to be a number and its unit, like “10 kilometres”. Received: {text[:100]!r}"
        )
    return tuple(parts)


def convert(quantity, unit):
    """The number of units that a quantity has.

    Args:
        quantity: what `parse_quantity` returned.
        unit: what `parse_unit` returned.

    Returns:
        A float.

    Raises:
        UnitError: the units do not go together.
    """
    registry = load_registry()
    try:
        return float(sum(registry.Quantity(float(value), name).to(unit).magnitude for value, name in quantity))
    except TypeError as error:  # pint's DimensionalityError is one
        raise UnitError(
            f"a unit is expected to be of the same kind as {show(quantity[0][1])}. Received: {show(unit)}"
        ) from error


def show(unit):
    """pint's name of a unit as people read it.

    >>> show("kilometer / hour"), show("degF")
    ('kilometers per hour', '°F')
    """
    if unit in SHOWN:
        return SHOWN[unit]
    name, _, power = unit.replace("_", " ").partition(" ** ")
    return f"{'square ' if power else ''}{name}s"


def parse_degrees(text):
    """A temperature: (the number, "degC", "degF" or None where no unit was said).

    Raises:
        UnitError: it is none.

    >>> parse_degrees("twenty one and a half degrees"), parse_degrees("70 °F")
    ((Fraction(43, 2), None), (Fraction(70, 1), 'degF'))
    """
    words, unit = split_words(text[:100]), None
    for width in (2, 1):
        found = find_unit(words, max(0, len(words) - width))
        if found and found[0] in ("degC", "degF") and found[1] == len(words):
            words, unit = words[: len(words) - width], found[0]
            break
    while words and words[-1] in ("degrees", "degree", "°"):
        words.pop()
    words = ["one" if word in ("a", "an") and len(words) == 1 else word for word in words]
    if words[:3] == ["a", "couple", "of"]:
        words = ["two"]
    if words[:1] == ["half"] and words[1:] in ([], ["a"]):
        return Fraction(1, 2), unit
    try:
        return parse_number(" ".join(words)), unit
    except ValueError:
        raise UnitError(f"a temperature is expected to be a number of degrees. Received: {text[:100]!r}") from None
