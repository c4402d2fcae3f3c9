"""Step 1 of the article: strip HTML. Bytes of a page in, its readable text out.

Three things happen to a page: its bytes are decoded (charset.py), its main content is separated from navigation,
advertisements and comments, and the text is cleaned. Extraction is resiliparse's: a parser in C++ that follows the
HTML5 rules, so broken mark-up costs no more than sound mark-up (the standard library's parser needs time in the square
of some broken pages). trafilatura, an extra, weighs what it finds, which is closer to what people cut out, and slower.
examples/benchmarks/extraction_quality.py measures both against text cut out by hand, and so were the options chosen.

    >>> from tf_llm.contracts import Page
    >>> strip_html(Page("http://a.example/", b"<title>Tea</title><p>Green &amp; black tea.</p>"))
    Document(url='http://a.example/', text='Green & black tea.', languages=())
    >>> strip_html(Page("http://a.example/", b"<script>start()</script>"))
    Rejected(url='http://a.example/', reason='no text', detail='')
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import itertools
import logging
import re
import unicodedata
from collections.abc import Callable

from resiliparse.extract.html2text import extract_plain_text

from tf_llm.contracts import Document, Page, Rejected, UserError
from tf_llm.text.charset import decode

HTML_TYPES = ("text/html", "application/xhtml+xml")
PLAIN_TYPES = ("text/plain",)
EXTRACTORS = ("fast", "trafilatura")

# A main content shorter than this many characters was probably not found: most such pages say more elsewhere.
SHORT_TEXT = 200
# Alternative texts of pictures, bullets and comment sections are words that the people who made the gold text left out.
EXTRACTION = {"alt_texts": False, "list_bullets": False, "comments": False, "links": False, "form_fields": False}

TRAFILATURA = {"include_comments": False, "favor_precision": True}
MISSED_SHARE = 0.25  # of the fast extractor's text; anything from .15 to .35 serves about as well

# Characters that show nothing: control characters but tab and newline, soft hyphen, zero-width space, direction marks,
# byte order mark, lone surrogates. Joiners (U+200C, U+200D) stay: Persian words and many emoji are made with them.
INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]+"
)
BINARY_SHARE = 0.05  # text has almost no control characters; compressed data and pictures have one in nine
CONTROL = re.compile("[\x00-\x08\x0e-\x1f]")

# resiliparse takes time in the square of the depth of these elements: 16,000 <div> in each other take it 6 seconds. The
# deepest of 882 real pages has 52.
NESTING = re.compile("<(/?)(?:div|article)\\b", re.IGNORECASE)
LIKE_NESTING = re.compile("<[dDaA][iIrR][vVtT]")  # all of these that open, and little else: found in half the time
MAX_DEPTH = 1_000
# Of others a million take 5 to 9 seconds and 500 MB, and 60,000 of some (<font>, <a>) 2 seconds. The deepest real page,
# with links that nobody closed, has 1,019. Elements that need no end are not counted: nobody knows how deep they are.
TAG = re.compile(r"<(/?)([a-z][^\s/>]{0,30})", re.IGNORECASE)
ENDLESS = (
    "area base br col embed hr img input link meta param source track wbr "
    "body colgroup dd dt head html li optgroup option p rp rt tbody td tfoot th thead tr"
)
ENDLESS = frozenset(ENDLESS.split())
MAX_TAGS = 5_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class HtmlConfig:
    """The switches of step 1."""

    main_content: bool = True  # leave out navigation, advertisements, comments; False keeps all the text of the page
    extractor: str = "fast"  # "fast", or "trafilatura": slower, and closer to what people cut out; main content only
    max_bytes: int = 8_000_000  # a larger page is rejected

    def __post_init__(self):
        if self.max_bytes < 1:
            raise ValueError(f"html.max_bytes expected at least 1. Received: {self.max_bytes!r}")
        if self.extractor not in EXTRACTORS:
            raise ValueError(f"html.extractor expected one of {sorted(EXTRACTORS)}. Received: {self.extractor!r}")
        if not self.main_content and self.extractor != "fast":
            raise ValueError(
                f"html.extractor expected 'fast' where html.main_content is False. Received: {self.extractor!r}"
            )


def strip_html(page: Page, config: HtmlConfig | None = None) -> Document | Rejected:
    """The readable text of a page, or why there is none.

    Plain text is decoded and cleaned only. Reasons: "too large", "not text" (by its media type), "binary" (by its
    characters), "nested too deeply", "unreadable HTML", "no text". Raises nothing but UserError where the extractor is
    not installed.
    """
    config = config or HtmlConfig()
    if len(page.content) > config.max_bytes:
        return Rejected(page.url, "too large", f"{len(page.content)} bytes, the limit is {config.max_bytes}")
    if page.content_type and page.content_type not in HTML_TYPES + PLAIN_TYPES:
        return Rejected(page.url, "not text", page.content_type)
    text = decode(page.content, page.charset)
    head = text[:4096]
    if len(CONTROL.findall(head)) > BINARY_SHARE * len(head):
        return Rejected(page.url, "binary", f"{len(CONTROL.findall(head))} control characters in the first {len(head)}")
    if page.content_type not in PLAIN_TYPES:
        for depth, limit in ((measure_slow_depth(text), MAX_DEPTH), (measure_depth(text), MAX_TAGS)):
            if depth > limit:
                return Rejected(page.url, "nested too deeply", f"{depth} elements, the limit is {limit}")
        try:
            text = extract_text(text, config.main_content, config.extractor)
        except UserError:
            raise
        except Exception as error:  # a parser in C++ fed by strangers: whatever it says costs this page only
            return Rejected(page.url, "unreadable HTML", repr(error))
    text = clean_text(text)
    return Document(page.url, text, page.languages) if text else Rejected(page.url, "no text")


def measure_slow_depth(html: str) -> int:
    """How many of the elements that resiliparse is slow with are open at once, at most; 0 where too few to matter are.

    >>> measure_slow_depth(1_001 * "<div>" + "</div><p></div>"), measure_slow_depth(501 * "<div><div></div>")
    (1001, 502)
    >>> measure_slow_depth("<div><div>")
    0
    """
    if len(LIKE_NESTING.findall(html)) <= MAX_DEPTH:
        return 0
    return max(itertools.accumulate(-1 if slash else 1 for slash in NESTING.findall(html)), default=0)


def measure_depth(html: str) -> int:
    """How many elements of any kind are open at once, at most; 0 where there are not enough tags to matter."""
    if html.count("<") <= MAX_TAGS:
        return 0
    tags = (-1 if slash else 1 for slash, name in TAG.findall(html) if name.lower() not in ENDLESS)
    return max(itertools.accumulate(tags), default=0)


def extract_text(html: str, main_content: bool = True, extractor: str = "fast") -> str:
    """The text of an HTML page, one line a block.

    Where hardly any main content is found, the text of the whole page stands in; and the fast extractor's text where
    trafilatura's is so much shorter that it must have missed the article.

    Raises UserError where the extractor is not installed.
    """
    text = extract_plain_text(html, main_content=main_content, **EXTRACTION)
    if main_content and len(text) < SHORT_TEXT:
        text = extract_plain_text(html, main_content=False, **EXTRACTION)
    if extractor == "trafilatura":
        closer = load_trafilatura()(html, **TRAFILATURA) or ""
        return closer if len(closer) >= MISSED_SHARE * len(text) else text
    return text


def require_extractor(config: HtmlConfig) -> None:
    """Raises UserError where the extractor is not installed: better said before the pages are read."""
    if config.extractor != "fast" and importlib.util.find_spec(config.extractor) is None:
        raise UserError(
            f"expected the package {config.extractor}, which html.extractor names. Received: it is not installed. "
            f'Install it: pip install "tf_llm[{config.extractor}]"'
        )


@functools.cache
def load_trafilatura() -> Callable[..., str | None]:
    """Its function, imported once. Raises UserError where it is not installed."""
    require_extractor(HtmlConfig(extractor="trafilatura"))
    import trafilatura

    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)  # of a page without text we hear from its result
    return trafilatura.extract


def clean_text(text: str) -> str:
    r"""Lines ended by \n, invisible characters removed, letters and accents composed (Unicode NFC), no outer space.

    >>> clean_text("cafe\u0301 \x00in\xadvisible\r\n")
    'café invisible'
    """
    text = INVISIBLE.sub("", "\n".join(text.splitlines()))
    return unicodedata.normalize("NFC", text).strip()
