"""Quantities in other units, by pint, which never sees what was said."""

import pytest

pytest.importorskip("pint", reason="needs the extra: pip install 'tf_llm[assistant]'")

from tf_llm.apps.assistant.units import (
    UNITS,
    UnitError,
    convert,
    load_registry,
    parse_degrees,
    parse_quantity,
    parse_unit,
)

QUANTITY = r"a quantity is expected to be a number and its unit, like “10 kilometres”\. Received: "


def test_every_unit_of_the_table_is_one_of_pint():
    for unit in set(UNITS.values()):
        assert load_registry().Quantity(1.0, unit).to_base_units().magnitude > 0


@pytest.mark.parametrize(
    ("quantity", "unit", "value"),
    [
        ("10 km", "miles", 6.21371192),
        ("six feet 2 inches", "cm", 187.96),
        ("20 °C", "Fahrenheit", 68),
        ("minus forty degrees celsius", "°F", -40),
        ("half a pint", "ml", 236.588236),
        ("two and a half cups", "millilitres", 591.470591),
        ("60 mph", "kilometres per hour", 96.56064),
        ("a stone", "pounds", 14),
        ("1 kilobyte", "bits", 8000),
        ("5 m²", "square feet", 53.8195521),
        ("1,000 kg", "tonnes", 1),
    ],
)
def test_quantities_are_converted(quantity, unit, value):
    assert convert(parse_quantity(quantity), parse_unit(unit)) == pytest.approx(value, rel=1e-8)


@pytest.mark.parametrize("text", ["", "10", "km", "2**9 m", "__import__('os') m", "ten apples", "9" * 31 + " m"])
def test_what_is_no_quantity_is_refused(text):
    with pytest.raises(UnitError, match=QUANTITY):
        parse_quantity(text)


def test_what_is_no_unit_is_refused():
    for text in ("", "apples", "meter ** 9", "m * m", "__class__"):
        with pytest.raises(UnitError, match=r"a unit is expected to be like “miles” or “°C”\. Received: "):
            parse_unit(text)
    with pytest.raises(UnitError, match=r"of the same kind as miles\. Received: kilograms"):
        convert(parse_quantity("3 miles"), parse_unit("kilos"))


def test_temperatures():
    assert parse_degrees("21.5 degrees celsius") == (21.5, "degC")
    assert parse_degrees("seventy °F") == (70, "degF")
    assert parse_degrees("eighteen point five") == parse_degrees("18 point five°") == (18.5, None)
    assert parse_degrees("a couple of degrees") == (2, None) and parse_degrees("half a degree") == (0.5, None)
    with pytest.raises(UnitError, match=r"a temperature is expected to be a number of degrees\. Received: 'warm'"):
        parse_degrees("warm")
