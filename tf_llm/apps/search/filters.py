"""Which entries are admitted, by site, language, date and any field of theirs; and how many have which value.

    {"site": "tea.example", "colour": ["green", "white"], "price": Between(2, 10), "date": Between("2026-03", None)}

A text or a number asks for that value, a list for any of its values, `Between` for numbers (of "date", dates) from the
one to the other, both included, None for no bound. Several filters must all be passed. A field that no entry has admits
none. The names that every entry may have are site, language, year (list_values of entries.py) and date.

In the index a field is one of texts or one of numbers, and a field with both is two. Its key there is its name in
hexadecimal: no name, whatever characters it has, means anything to the library.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tf_llm.apps.search.entries import DATE, Value, count_day
from tf_llm.contracts import UserError

MAX_FACETS = 20  # fields that are counted
MAX_VALUES = 10  # of each, the most frequent ones
MAX_DISTINCT = 1_000  # values of a field, of which more are not counted
MAX_ANY = 1_000  # values of a list
EXAMPLES = 'as a text, a number, a list of them, or Between(least, most), such as {"price": Between(2, 10)}'


@dataclasses.dataclass(frozen=True, slots=True)
class Between:
    """From `least` to `most`, both included; None is no bound. Numbers, or for "date" what a date begins with."""

    least: float | str | None = None
    most: float | str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Facet:
    """How many of the entries found have which value of a field: the most frequent first."""

    values: tuple[tuple[Value, int], ...]
    others: int = 0  # how often values occur that are not listed
    least: float | None = None  # of the numbers
    most: float | None = None


Filters = Mapping[str, Value | Sequence[Value] | Between]


def name_key(name: str, kind: str) -> str:
    """The key of a field in the index; `kind` is "s" for texts, "n" for numbers.

    >>> name_key("price (€)", "n"), read_key("n70726963652028e282ac29")
    ('n70726963652028e282ac29', ('price (€)', 'n'))
    """
    return kind + name.encode("utf-8", "ignore").hex()


def read_key(key: str) -> tuple[str, str]:
    """(name, kind) of a key."""
    return bytes.fromhex(key[1:]).decode(), key[0]


def flatten_values(fields: Mapping[str, Iterable[Value]]) -> dict[str, list[Value]]:
    """Fields by their keys, texts and numbers apart.

    >>> flatten_values({"a": ("x", 1.0)})
    {'s61': ['x'], 'n61': [1.0]}
    """
    flat: dict[str, list[Value]] = {}
    for name, values in fields.items():
        for value in values:
            flat.setdefault(name_key(name, "s" if isinstance(value, str) else "n"), []).append(value)
    return flat


def build_filter(index, name: str, wanted: Value | Sequence[Value] | Between):
    """The query of tantivy that admits what one filter admits.

    Raises:
        UserError: it is no filter.
    """
    from tantivy import FieldType, Occur, Query

    if not isinstance(name, str) or not name:
        raise UserError(f"the name of a filter is expected to be a text. Received: {name!r}. Write filters {EXAMPLES}")
    if name == DATE:
        least, most = read_days(wanted)
        return Query.range_query(index.schema, "day", FieldType.Integer, least, most)
    if isinstance(wanted, Between):
        bounds = [format_bound(name, bound, wanted) for bound in (wanted.least, wanted.most)]
        # The library's only way to ask for numbers within a JSON field is its query language; all of this text is ours:
        # hexadecimal digits, and numbers.
        return index.parse_query(f"fields.{name_key(name, 'n')}:[{bounds[0]} TO {bounds[1]}]", ["body"])
    values = list(wanted) if isinstance(wanted, list | tuple | set | frozenset) else [wanted]
    if len(values) > MAX_ANY:
        raise UserError(f"the filter {name!r} is expected to have at most {MAX_ANY} values. Received: {len(values)}")
    clauses = []
    for value in values:
        value = str(value).lower() if isinstance(value, bool) else value
        if not isinstance(value, str | int | float):
            raise UserError(f"the filter {name!r} is expected {EXAMPLES}. Received: {value!r}")
        number = read_number(value)
        if isinstance(value, str):
            value = value.encode("utf-8", "ignore").decode().strip()
            clauses.append(Query.term_query(index.schema, f"fields.{name_key(name, 's')}", value))
        if number is not None:  # also "5", as a web page's form says it
            clauses.append(Query.term_query(index.schema, f"fields.{name_key(name, 'n')}", number))
    return Query.boolean_query([(Occur.Should, clause) for clause in clauses]) if clauses else Query.empty_query()


def read_number(value: Value) -> float | None:
    """The finite number that a value is or spells; None where it is none.

    >>> read_number("2.50"), read_number(3), read_number("x"), read_number("nan")
    (2.5, 3.0, None, None)
    """
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def read_days(wanted: str | Between) -> tuple[int, int]:
    """The first and the last day that a filter of dates admits, as numbers. Raises UserError.

    >>> read_days("2026-03"), read_days(Between("2025", None))
    ((20260300, 20260399), (20250000, 99999999))
    """
    least, most = (wanted.least, wanted.most) if isinstance(wanted, Between) else (wanted, wanted)
    try:
        return (
            count_day(str(least), "00") if least is not None else 0,
            count_day(str(most), "99") if most is not None else 99999999,
        )
    except ValueError as error:
        raise UserError(str(error)) from error


def format_bound(name: str, bound: float | str | None, wanted: Between) -> str:
    """A bound of numbers as digits; * where there is none.

    >>> format_bound("price", 1e-3, Between(1e-3)), format_bound("price", None, Between())
    ('0.001', '*')
    """
    if bound is None or (isinstance(bound, float) and math.isinf(bound)):
        return "*"
    number = read_number(bound) if isinstance(bound, str | int | float) else None
    if number is None:
        raise UserError(f"the filter {name!r} is expected to be between numbers. Received: {wanted}")
    return np.format_float_positional(number, trim="0")


def choose_facets(searcher) -> dict[str, bool]:
    """The keys of the fields that most entries have, first those that more have -> whether their values are counted.

    Nobody would choose among a thousand values: of such numbers it is only said from where to where they go, and such
    texts, which tell entries apart, are left out.
    """
    from tantivy import Query

    names = sorted(searcher.terms_with_prefix("names", ""), key=lambda pair: (-pair[1], pair[0]))[:MAX_FACETS]
    distinct = {key: searcher.cardinality(Query.all_query(), f"fields.{key}") for key, _ in names}
    return {key: few <= MAX_DISTINCT for key, few in distinct.items() if key[0] == "n" or few <= MAX_DISTINCT}


def count_facets(searcher, query, keys: Mapping[str, bool]) -> dict[str, Facet]:
    """{name: Facet} of the keys that `choose_facets` has chosen, for the entries that a query finds.

    A field of texts of which no two of these entries share one is left out.
    """
    counts = {
        key: {"terms": {"field": f"fields.{key}", "size": MAX_VALUES}} for key, counted in keys.items() if counted
    }
    spans = {f"{key} span": {"stats": {"field": f"fields.{key}"}} for key in keys if key[0] == "n"}
    answers, facets = searcher.aggregate(query, counts | spans) if keys else {}, {}
    for key in keys:
        name, kind = read_key(key)
        answer = answers.get(key, {"buckets": [], "sum_other_doc_count": 0})
        buckets = [(bucket["key"], bucket["doc_count"]) for bucket in answer["buckets"]]
        others, span = answer["sum_other_doc_count"], answers.get(f"{key} span", {"min": None, "max": None})
        says_nothing = span["min"] is None if kind == "n" else not buckets or (others and buckets[0][1] == 1)
        if not says_nothing and name not in facets:  # of texts and numbers with one name, what more entries have
            facets[name] = Facet(tuple(buckets), others, span["min"], span["max"])
    return facets
