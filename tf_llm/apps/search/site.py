"""Entries of pages: site search over whatever crawl/ can read.

    >>> from tf_llm.contracts import Page
    >>> page = b"<html lang='en'><title>Green tea - Teas</title><main><p>Steamed, then dried.</p></main></html>"
    >>> (entry,) = read_site([Page("https://tea.example/green", page, date="2026-03-01T12:00:00Z")])
    >>> entry.title, entry.text, entry.language, entry.date
    ('Green tea - Teas', 'Steamed, then dried.', 'en', '2026-03-01')

A page goes the way it goes when a corpus is prepared: text out of mark-up, then the filters. What does not come out at
the other end is a `Rejected`, whose reason `SearchIndex.update` counts.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from urllib.parse import unquote, urlsplit

from resiliparse.parse.html import HTMLTree

from tf_llm.apps.search.entries import Entry
from tf_llm.contracts import Document, Page, Rejected
from tf_llm.languages import name_language
from tf_llm.prepare.read import clean_page
from tf_llm.text.charset import decode
from tf_llm.text.filters import FilterConfig, Filters
from tf_llm.text.html import HTML_TYPES, HtmlConfig

MAX_TITLE = 300  # characters
TITLE = re.compile(rb"<title", re.IGNORECASE)


def read_site(
    pages: Iterable[Page], html: HtmlConfig | None = None, filters: FilterConfig | None = None
) -> Iterator[Entry | Rejected]:
    """Yields the entry of each page, or why there is none.

    Args:
        pages: a `contracts.Source`, or any other pages.
        html: how text is taken out of mark-up.
        filters: which pages are kept, and what is edited in them. None keeps all as they are: what a site says of
            itself, addresses and telephone numbers included, may be found there.

    Raises:
        UserError: the source cannot be read, or a package that was asked for is missing.
    """
    html, rules = html or HtmlConfig(), Filters(filters or FilterConfig(names=""))
    for page in pages:
        document = clean_page(page, html, rules, Counter())
        yield make_entry(page, document) if isinstance(document, Document) else document
    for reason, count in getattr(pages, "rejections", {}).items():  # what never became a page
        yield from itertools.repeat(Rejected("", reason), count)


def make_entry(page: Page, document: Document) -> Entry:
    """The entry of a page and of the document that was found in it."""
    title, language = ("", "")
    if page.content_type in HTML_TYPES or not page.content_type:
        title, language = read_head(page)
    languages = [name_language(label) for label in (*document.languages, language)]
    return Entry(
        address=document.url,
        title=title or name_page(document),
        text=document.text,
        language=next(filter(None, languages), ""),
        date=(page.date or "")[:10],
    )


def read_head(page: Page) -> tuple[str, str]:
    """(title, language) as the page's own mark-up says, "" where it does not."""
    if not TITLE.search(page.content) and b"lang" not in page.content:
        return "", ""
    tree = HTMLTree.parse(decode(page.content, page.charset))
    root = tree.document.query_selector("html")
    title, heading = " ".join((tree.title or "").split()), tree.document.query_selector("h1")
    heading = " ".join(heading.text.split()) if heading else ""
    if 3 < len(heading) < len(title) and heading in title:
        title = heading  # without the name of the site
    return title[:MAX_TITLE], (root.getattr("lang") or "") if root else ""


def name_page(document: Document) -> str:
    """A title for a page without one: its first line where that is short, else the end of its address.

    >>> name_page(Document("https://tea.example/teas/green%20tea.html", "x" * 200))
    'green tea'
    """
    first = document.text.partition("\n")[0].strip()
    if 0 < len(first) <= 100:
        return first
    try:
        path = urlsplit(document.url).path
    except ValueError:
        path = document.url
    return unquote(path.rstrip("/").rpartition("/")[2]).removesuffix(".html")
