r"""What is asked of a tool: a `Call`, and its notation.

    set_reminder(text="water the ferns", time="at six")

A call names a tool and gives its slots the words that were said, verbatim; what they mean is found out later, by the
tool. The notation is what a model writes. It is data: read by the few lines below, it is never evaluated.

    call     = name "(" [argument {"," argument}] ")"
    argument = slot "=" string
    string   = '"' {any character but '"', "\" and those of a control or a new line | escape} '"'
    escape   = '\"' | "\\" | "\n" | "\r" | "\t" | "\u" and four hexadecimal digits

A name or a slot has letters of ASCII, digits, `_` and `.`, and no digit first. Spaces may stand between the parts.
"""

import dataclasses
import re
import unicodedata

OUT_OF_SCOPE = "out_of_scope"  # the name of utterances for which there is no call
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
ESCAPE = re.compile(r'\\(?:(["\\nrt])|u([0-9a-fA-F]{4}))?')
CONTROLS = ("Cc", "Zl", "Zp")  # Unicode's categories of controls and of what ends a line
ESCAPES = {'"': '"', "\\": "\\", "n": "\n", "r": "\r", "t": "\t"}
LETTERS = {character: letter for letter, character in ESCAPES.items()}


@dataclasses.dataclass(frozen=True)
class Call:
    """A tool and what was said for its slots, in the order in which it was said.

    Raises:
        ValueError: the name or a slot is none that the notation has.

    >>> Call("set_timer", (("duration", "ten minutes"),)).get("duration")
    'ten minutes'
    """

    name: str
    arguments: tuple[tuple[str, str], ...] = ()  # (slot, the words that were said)

    def __post_init__(self):
        for name in (self.name, *(slot for slot, _ in self.arguments)):
            if not NAME.fullmatch(name):
                raise ValueError(
                    f"a name of a tool or a slot is expected to have letters, digits, _ and . Received: {name!r}"
                )

    def get(self, slot, default=None):
        """What was said for a slot; of several times, the first."""
        return next((text for name, text in self.arguments if name == slot), default)

    def __str__(self):
        return format_call(self)


@dataclasses.dataclass(frozen=True)
class Understood:
    """What an understanding makes of a request."""

    call: Call | None  # None: out of scope
    confidence: float  # in [0, 1]


@dataclasses.dataclass(frozen=True)
class Utterance:
    """Something that was said, and which of its words stand for what: an example to learn from.

    >>> said = Utterance("set_timer", (("set a timer for ", None), ("ten minutes", "duration"), (" please", None)))
    >>> said.text, str(said.call)
    ('set a timer for ten minutes please', 'set_timer(duration="ten minutes")')
    """

    name: str  # of the tool, or OUT_OF_SCOPE
    chunks: tuple[tuple[str, str | None], ...]  # (text, slot or None); joined, the texts are what was said

    @property
    def text(self):
        """What was said."""
        return "".join(text for text, _ in self.chunks)

    @property
    def call(self):
        """The call that is meant, or None where it is out of scope."""
        if self.name == OUT_OF_SCOPE:
            return None
        return Call(self.name, tuple((slot, text) for text, slot in self.chunks if slot is not None))


def quote(text):
    r"""A string of the notation.

    >>> print(quote('the "big" one' + chr(10)))
    "the \"big\" one\n"
    """
    return '"' + "".join(escape(character) for character in text) + '"'


def escape(character):
    """A character as it stands between the quotes."""
    if character in LETTERS:
        return "\\" + LETTERS[character]
    return f"\\u{ord(character):04x}" if unicodedata.category(character) in CONTROLS else character


def format_call(call):
    """The notation of a call, in one line.

    >>> format_call(Call("set_reminder", (("text", "water the ferns"), ("time", "at six"))))
    'set_reminder(text="water the ferns", time="at six")'
    """
    return f"{call.name}({', '.join(f'{slot}={quote(text)}' for slot, text in call.arguments)})"


def parse_call(text):
    """The call that a text denotes.

    Raises:
        ValueError: it denotes none; what was expected where.

    >>> parse_call('set_timer(duration="ten minutes")')
    Call(name='set_timer', arguments=(('duration', 'ten minutes'),))
    >>> parse_call("f(a=10)")
    Traceback (most recent call last):
    ValueError: a call is expected to have a string in quotation marks at character 4. Received: 'f(a=10)'
    """
    reading = Reading(text)
    name, arguments = reading.take(NAME, "a name").group(), []
    reading.take(r"\(", "(")
    if not reading.follows(r"\)"):
        while True:
            slot = reading.take(NAME, "a slot").group()
            reading.take("=", "=")
            arguments.append((slot, reading.unquote(reading.take(STRING, "a string in quotation marks"))))
            if not reading.follows(","):
                break
            reading.take(",", ",")
    reading.take(r"\)", ", or )")
    reading.take(r"\Z", "its end")
    return Call(name, tuple(arguments))


class Reading:
    """A text and how much of it has been read."""

    def __init__(self, text):
        self._text, self._place = text, 0

    def _refuse(self, expected, place):
        received = repr(self._text if len(self._text) <= 200 else self._text[:200] + "…")
        return ValueError(f"a call is expected to have {expected} at character {place}. Received: {received}")

    def follows(self, pattern):
        """Whether that comes next, behind any spaces."""
        self._place = re.compile(" *").match(self._text, self._place).end()
        return re.compile(pattern).match(self._text, self._place)

    def take(self, pattern, expected):
        """The match of what has to come next."""
        match = self.follows(pattern)
        if match is None:
            raise self._refuse(expected, self._place)
        self._place = match.end()
        return match

    def unquote(self, match):
        """What a match of STRING stands for."""

        def decode(found):
            letter, digits = found.groups()
            if letter is None and digits is None:
                raise self._refuse(r"one of the escapes \" \\ \n \r \t \u0000", match.start(1) + found.start())
            return ESCAPES[letter] if letter else chr(int(digits, 16))

        inside = match.group(1)
        for place, character in enumerate(inside, match.start(1)):
            if unicodedata.category(character) in CONTROLS:
                raise self._refuse("no control character", place)
        return ESCAPE.sub(decode, inside)
