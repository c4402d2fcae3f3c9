"""What is searched: entries, each a page, a product or whatever else has an address and a text.

    >>> entry = Entry("https://tea.example/green", "Green tea", "Steamed.", date="2026-03-01", language="eng")
    >>> checked = check_entry(entry)
    >>> checked.language, checked.site, checked.day
    ('en', 'tea.example', 20260301)
    >>> check_entry(Entry("https://tea.example/", "", " "))
    Rejected(url='https://tea.example/', reason='no text', detail='')

`check_entry` stands between strangers and the index: what passes it can be written, whatever it says. Reasons:

    "no entry"        is nothing that `Entry` describes
    "no address"      has none, or one of more than 2,000 characters
    "no text"         has neither title nor text
    "too large"       has more than 2 million characters
    "bad date"        has a date that does not begin as ISO 8601 does: 2026, 2026-03 or 2026-03-01
    "bad field"       has a field that is no text, number or list of them, or whose name is taken
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from tf_llm.contracts import Rejected
from tf_llm.languages import name_language

MAX_ADDRESS = 2_000  # characters; browsers take no more
MAX_CHARACTERS = 2_000_000  # of an entry; a book has one million
MAX_VALUE = 500  # characters of a field's value: it is shown as a facet
MAX_FIELDS = 100
DATE = "date"  # what filters call the date of an entry; no field may have this name
DAY = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2}))?)?(?!\d)")
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]+")  # control characters, and halves of characters

Value = str | float  # of a field


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """What is found or not found as a whole. Its address is its key: another one with the same address replaces it."""

    address: str
    title: str = ""
    text: str = ""
    language: str = ""  # a code of ISO 639, "" where it is not known
    date: str = ""  # ISO 8601
    fields: Mapping[str, Value | tuple[Value, ...]] = dataclasses.field(default_factory=dict)  # to filter and count by

    @property
    def site(self) -> str:
        """The host in the address; "" where there is none."""
        try:
            return urlsplit(self.address).hostname or ""
        except ValueError:  # [ and ] in the wrong place
            return ""

    @property
    def day(self) -> int:
        """The date as a number, 20260301; 0 for none. Numbers of days are in the order of time."""
        return count_day(self.date) if self.date else 0

    def list_values(self) -> dict[str, tuple[Value, ...]]:
        """All that can be filtered and counted by: site, language, year and the fields, which may replace these."""
        own = {"site": self.site, "language": self.language, "year": self.date[:4]}
        values = {name: (value,) for name, value in own.items() if value}
        return values | {name: each if isinstance(each, tuple) else (each,) for name, each in self.fields.items()}


def count_day(date: str, missing: str = "00") -> int:
    """A date as a number; `missing` stands for a month or day that is not said.

    Raises:
        ValueError: it does not begin as ISO 8601 does.

    >>> count_day("2026-03-01T12:00:00Z"), count_day("2026-03"), count_day("2026", "99")
    (20260301, 20260300, 20269999)
    """
    found = DAY.match(date)
    if not found:
        raise ValueError(f"date is expected as 2026, 2026-03 or 2026-03-01. Received: {date!r}")
    return int("".join(part or missing for part in found.groups()))


def check_entry(entry: Entry) -> Entry | Rejected:
    """The entry as it can be written, or why it cannot. Raises nothing."""
    if not isinstance(entry, Entry):
        return Rejected("", "no entry", type(entry).__name__)
    texts = {name: getattr(entry, name) for name in ("address", "title", "text", "language", "date")}
    for name, text in texts.items():
        if not isinstance(text, str):
            return Rejected(str(entry.address)[:MAX_ADDRESS], "no entry", f"{name} is {type(text).__name__}")
    texts = {name: clean(text) for name, text in texts.items()}
    address = texts["address"]
    if not 0 < len(address) <= MAX_ADDRESS:
        return Rejected(address[:MAX_ADDRESS], "no address", f"{len(address)} characters")
    size = len(texts["title"]) + len(texts["text"])
    if not size:
        return Rejected(address, "no text")
    if size > MAX_CHARACTERS:
        return Rejected(address, "too large", f"{size} characters, the limit is {MAX_CHARACTERS}")
    if texts["date"] and not DAY.match(texts["date"]):
        return Rejected(address, "bad date", texts["date"][:50])
    texts["language"] = name_language(texts["language"]) or ""
    try:
        fields = dict(map(check_field, *zip(*entry.fields.items(), strict=True))) if entry.fields else {}
        if len(fields) > MAX_FIELDS:
            raise ValueError(f"{len(fields)} of them, the limit is {MAX_FIELDS}")
    except (AttributeError, TypeError, ValueError) as error:
        return Rejected(address, "bad field", str(error))
    return Entry(**texts, fields={name: value for name, value in fields.items() if value != ()})


def check_field(name: str, value: object) -> tuple[str, tuple[Value, ...]]:
    """A field as it can be written, its values as a tuple without what says nothing. Raises ValueError."""
    if not isinstance(name, str) or not 0 < len(name) <= MAX_VALUE or name == DATE or clean(name) != name:
        raise ValueError(f"{name!r} is no name")
    values = []
    for each in value if isinstance(value, list | tuple) else [value]:
        if isinstance(each, bool):
            each = str(each).lower()
        if isinstance(each, int | float) and abs(each) < 2**53:  # larger numbers are not what they are as a float
            values.append(float(each))
        elif isinstance(each, str) and len(each) <= MAX_VALUE:
            values += [clean(each)] if clean(each) else []
        elif each is not None and not (isinstance(each, float) and math.isnan(each)):  # nan is how pandas says None
            raise ValueError(f"{name} = {str(each)[:50]}")
    return name, tuple(dict.fromkeys(values))


def clean(text: str) -> str:
    r"""The text without characters that cannot be written, and without outer space.

    >>> clean(" caf\ud800é\x00\n")
    'café'
    """
    return UNSEEN.sub("", text).strip()


def write_entry(entry: Entry) -> bytes:
    """The bytes that the index keeps of a checked entry."""
    return json.dumps([entry.address, entry.title, entry.text, entry.language, entry.date, entry.fields]).encode()


def read_entry(content: bytes) -> Entry:
    """The entry of such bytes.

    >>> read_entry(write_entry(Entry("a", "b", fields={"c": (1.0, "d")}))).fields
    {'c': (1.0, 'd')}
    """
    *texts, fields = json.loads(content)
    return Entry(*texts, fields={name: tuple(values) for name, values in fields.items()})
