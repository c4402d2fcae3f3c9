"""Bytes into characters, whatever the page, its server, or nobody says they are.

    >>> decode("Zażółć gęślą jaźń".encode("utf-8"), charset="iso-8859-2")        # a wrong label
    'Zażółć gęślą jaźń'
    >>> decode("Zażółć gęślą jaźń".encode("iso-8859-2"), charset="iso-8859-2")   # a right one
    'Zażółć gęślą jaźń'
    >>> decode("<meta charset=koi8-r>котёнок".encode("koi8-r"), charset="iso-8859-1")   # the page knows better
    '<meta charset=koi8-r>котёнок'

What decides, in this order:

    1. a byte order mark
    2. every other byte being zero: UTF-16
    3. UTF-8, where the bytes are: other encodings hardly ever look like it, while labels are often wrong
    4. what the server said, what the page says in a <meta> of its first kilobyte, what a detector finds (uchardet, by
       resiliparse): the first of the three that makes words

Browsers stop at the server's word (https://html.spec.whatwg.org/#determining-the-character-encoding); readers then see
"Ñúåøü åù¸" and choose another encoding by hand. `find_odd_share` takes their place.
"""

from __future__ import annotations

import codecs
import contextlib
import re
from collections.abc import Iterator

from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5

BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
META = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:+-]{1,40})", re.IGNORECASE)
HEAD_BYTES = 1024  # in which a page has to name its encoding; browsers look no further
SAMPLE_WORDS, SAMPLE_BYTES = 5_000, 50_000  # enough to tell words from what is none, and UTF-8 from what is not
BAD_SHARE = 0.1  # of the characters outside ASCII that may be unreadable in UTF-8
ODD_SHARE = 0.05  # of the words with characters outside ASCII that may look odd in the right encoding
LONG_WORD = 100  # characters, of which no more need to be seen
ASCII = bytes(range(128))
TELLING_BYTES = 20  # outside ASCII, from which the detector is worth more than the usual
DEFAULT, KOREAN = "cp1252", "cp949"
# Browsers read the names of the smaller encodings as the larger ones, and so do the pages that bear them.
LARGER = {"gbk": "gb18030", "euc_kr": KOREAN, "shift_jis": "cp932", "big5": "big5hkscs", "iso8859-11": "cp874"}
UNICODE = ("utf-8", "utf-16", "utf-16-le", "utf-16-be")  # tried before any label

# What is odd in a word, because hardly any language has it and a wrong encoding makes it all the time.
ODD = re.compile(
    "[\x80-\x9f\ufffd\ue000-\uf8ff]"  # control characters, characters that are none
    "|[^\\W\\d_][¡-©¬-±´¶¸»¿×÷ˇ˘-˝][^\\W\\d_]"  # a sign between letters: gê¶l±
    "|[À-ÖØ-öø-ÿ]{4}"  # letters with accents alone: Ñúåøü
    "|[a-zß-öø-ÿŁłа-яα-ω][A-ZÀ-ÖØ-ÞА-ЯΑ-Ω]{2}"  # capitals behind a small letter: уЯЕЫШ
    "|[a-zA-Z][Ѐ-ӿͰ-Ͽ]|[Ѐ-ӿͰ-Ͽ][a-zA-Z]"  # two alphabets in a word
    "|[｡-ﾟ]{3}"  # katakana of half width
    "|[\u2500-\u259f]"  # the frames of old screens
)


def decode(content: bytes, charset: str | None = None) -> str:
    """The characters of a page. Bytes that the encoding found cannot read are dropped. Raises nothing.

    charset: what the server or the archive says. A name that no browser knows is no name.
    """
    for mark, encoding in BYTE_ORDER_MARKS:
        if content.startswith(mark):
            return content[len(mark) :].decode(encoding, errors="ignore")
    if encoding := find_utf16(content):
        return content.decode(encoding, errors="ignore")
    # ASCII bytes are ASCII text, but for encodings that shift by escapes.
    if content.isascii() and b"\x1b" not in content:
        return content.decode("ascii")
    if not content.isascii() and (text := read_utf8(content)) is not None:
        return text
    best, least = content.decode(DEFAULT, errors="ignore"), 1.0
    for encoding in dict.fromkeys(name_encodings(content, charset)):
        text = content.decode(encoding, errors="replace")
        share = find_odd_share(text)
        if share < least:
            best, least = text, share
        if share <= ODD_SHARE:
            break
    return best.replace("\ufffd", "")


def find_utf16(content: bytes) -> str | None:
    """Which of the two forms of UTF-16 the bytes are, if one: half of mark-up, digits and blanks are zero bytes there.

    >>> find_utf16("<p>猫".encode("utf-16-le")), find_utf16(b"<p>cat")
    ('utf-16-le', None)
    """
    head = content[:HEAD_BYTES]
    even, odd = head[::2].count(0), head[1::2].count(0)
    if max(even, odd) > len(head) / 10 and max(even, odd) > 8 * min(even, odd):
        return "utf-16-be" if even > odd else "utf-16-le"
    return None


def read_utf8(content: bytes) -> str | None:
    """The text, if almost all bytes outside ASCII are UTF-8: crawlers cut long pages in the middle of a character."""
    with contextlib.suppress(UnicodeDecodeError):
        return content.decode()
    foreign = content.translate(None, ASCII)[:SAMPLE_BYTES].decode(errors="replace")
    return content.decode(errors="ignore") if foreign.count("\ufffd") <= BAD_SHARE * len(foreign) else None


def name_encodings(content: bytes, charset: str | None) -> Iterator[str]:
    """Python's names of the encodings to try, most trusted first; detection costs time and comes last."""
    meta = META.search(content, 0, HEAD_BYTES)
    yield from filter(None, [map_label(charset), map_label(meta[1].decode("ascii", "ignore")) if meta else None])
    detected = map_label(detect_encoding(content, html5_compatible=False))
    # From a few bytes anything is detected, and from Korean nothing. Escapes (iso-2022-jp) are told from few.
    if detected and (content.isascii() or len(content.translate(None, ASCII)) >= TELLING_BYTES):
        yield from [detected, DEFAULT]
    else:
        yield from [DEFAULT, detected or KOREAN]


def map_label(label: str | None) -> str | None:
    """Python's name of an encoding as browsers read it: iso-8859-1 means Windows-1252. None for Unicode's.

    >>> map_label("ISO-8859-1"), map_label("gb2312"), map_label("no such"), map_label("utf8")
    ('cp1252', 'gb18030', None, None)
    """
    with contextlib.suppress(UnicodeError, LookupError):
        encoding = map_encoding_to_html5(label or "", fallback_utf8=False)
        if encoding and codecs.lookup(encoding).name not in UNICODE:
            return LARGER.get(encoding, encoding)
    return None


def find_odd_share(text: str) -> float:
    """Of the words with characters outside ASCII, the share in which something is as no language has it.

    >>> find_odd_share("Съешь булок"), find_odd_share("Ñúåøü áóëîê")
    (0.0, 1.0)
    """
    words = [word for word in text.split() if not word.isascii()][:SAMPLE_WORDS]
    return sum(ODD.search(word, 0, LONG_WORD) is not None for word in words) / max(1, len(words))
