r"""The mark-up of Wikipedia's articles into the prose that readers see.

    >>> strip_wikitext("'''Tea''' is a [[Beverage|drink]].<ref>{{cite book}}</ref>\n\n== Kinds ==\n* [[Green tea]]\n")
    'Tea is a drink.\n\nKinds\nGreen tea'

Two steps. First one scan takes away what holds no prose: comments, templates, tables, footnotes, pictures, categories.
What is left is parsed line by line by mwparserfromhell, and of its tree the text is kept: of links what they show,
headings as lines, lists without their bullets. A heading without text below it, such as "References", goes, too.

Strangers write wikitext. The scan takes time in proportion to the text, whatever it is. The parser does not: it tries
an opening bracket that nothing closes again and again, and 2,000 times `<ref name="` takes it several seconds. So
brackets without a partner are taken away as well, and where many are left to try, the text is refused.

The mark-up is described at https://www.mediawiki.org/wiki/Help:Formatting, the parser at
https://mwparserfromhell.readthedocs.io
"""

from __future__ import annotations

import functools
import re
import types
from collections.abc import Iterable, Iterator
from typing import Any

from tf_llm.contracts import UserError

HIDDEN = ("file", "image", "media", "category")  # namespaces whose links show no text; every wiki knows these names
# Tags whose content is no prose.
NO_PROSE = (
    "categorytree|chem|code|gallery|graph|hiero|imagemap|indicator|inputbox|mapframe|maplink|math|noinclude|ref|"
    "references|score|section|source|style|syntaxhighlight|templatedata|templatestyles|timeline"
)
MAX_CHARACTERS = 2_097_152  # Wikipedia accepts no more bytes
# Of 206 long articles of the English Wikipedia the worst have 180,096 characters, 2 brackets, 1,681 marks, 0 tries.
MAX_STRAY = 1_000  # brackets without a partner
MAX_MARKS = 20_000  # brackets and entities that are left to the parser, which takes some 40 microseconds for each
MAX_TRIES = 1_000_000  # characters of a line × single brackets in it that nothing closes, in the whole text
MAX_DEPTH = 20  # of links in links; the parser gives up at 40

COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
NO_WIKI = re.compile(r"<nowiki\s*>(.*?)(?:</nowiki\s*>|\Z)", re.DOTALL | re.IGNORECASE)
NO_PROSE_TAG = re.compile(rf"<({NO_PROSE})\b[^<>]*?(/?)>", re.IGNORECASE)
BRACKET = re.compile(r"\{\{|\}\}|\[\[|\]\]|^[ \t:*]*\{\||^[ \t]*\|\}(?!\})", re.MULTILINE)
PARTNER = {"}}": "{{", "]]": "[[", "|}": "{|"}
LINE_BREAK = re.compile(r"<br\b[^<>]*>", re.IGNORECASE)
TAG = re.compile(r"</?[a-z][a-z0-9]*\b[^<>]*>", re.IGNORECASE)
VARIANTS = re.compile(
    r"-\{(?:[^{}|;:]{0,20}\|)?([^{}]*)\}-"
)  # the same words in several scripts, in Chinese and others
MAGIC_WORD = re.compile(r"__[^\W\d_]+__")
HEADING = re.compile(r"(={1,6})(.+?)\1\s*")
BULLETS = re.compile(r"[*#:;]+\s*|-{4,}")
MARKUP = re.compile(r"\[|&#?\w+;|//|mailto:")  # what makes a line worth a parser
QUOTES = re.compile(r"'{5,}|'''(?!s\b)|''")  # bold and italic; of three, one may be an apostrophe: 'Iliad''s
GAPS = (  # what a template leaves behind in brackets
    (re.compile(r"([(（])\s*(?:[,;，；]\s*)+"), r"\1"),
    (re.compile(r"[(（]\s*[)）]"), ""),
    (re.compile(r"[ \t\xa0]{2,}"), " "),
)


class TooComplexError(ValueError):
    """Wikitext that a parser would need too long for."""


def strip_wikitext(text: str, hidden: Iterable[str] = ()) -> str:
    """The prose of a page's wikitext.

    Args:
        text: the wikitext.
        hidden: names of more namespaces whose links show no text, such as "Datei" and "Kategorie" in a German wiki.

    Raises:
        TooComplexError: it is very long, or a tangle of brackets.
        UserError: mwparserfromhell is not installed.
    """
    check_count(len(text), MAX_CHARACTERS, "characters")
    hidden_link = compile_hidden(tuple(hidden))
    text = COMMENT.sub("", text)
    text = NO_WIKI.sub(lambda span: escape(span[1]), text)
    text = drop_tags(text)
    text = drop_brackets(text, hidden_link)
    text = TAG.sub("", LINE_BREAK.sub("\n", text))
    text = MAGIC_WORD.sub("", VARIANTS.sub(choose_variant, text))
    check_count(text.count("<") + text.count("{"), MAX_STRAY, "brackets without a partner")
    text = text.replace("<", "&lt;").replace("{", "&#123;")  # what is left of these means nothing but itself
    check_count(len(MARKUP.findall(text)), MAX_MARKS, "links and entities")
    lines = [line.strip() for line in QUOTES.sub("", text).split("\n")]
    tries = sum(len(line) * max(0, line.count("[") - line.count("]")) for line in lines)
    check_count(tries, MAX_TRIES, "characters behind brackets that nothing closes")
    text = "\n".join(drop_empty_headings(map(strip_line, lines)))
    for gap, rest in GAPS:
        text = gap.sub(rest, text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


@functools.cache
def compile_hidden(names: tuple[str, ...]) -> re.Pattern[str]:
    """What stands behind the brackets of a link that shows no text: a name of HIDDEN or `names`, or a language."""
    known = "|".join(re.escape(name).replace(r"\ ", "[ _]+") for name in (*HIDDEN, *names) if name)
    return re.compile(rf"\s*(?:(?:{known})\s*:|(?-i:[a-z]{{2,3}}(?:-[a-z-]+)?:)[^|\]]*$)", re.IGNORECASE)


def escape(text: str) -> str:
    """Text in which the parser sees no mark-up: every character that could be some as a numeric entity."""
    return re.sub(r"[^\w\s]", lambda character: f"&#{ord(character[0])};", text)


def drop_tags(text: str) -> str:
    """The text without the elements of NO_PROSE; of one that is not closed, the opening alone is dropped.

    >>> drop_tags('Tea<ref name="a" /> and<ref>Book, p. 4</ref> toast<ref>.')
    'Tea and toast.'
    """
    kept, position, unclosed = [], 0, set()
    while opening := NO_PROSE_TAG.search(text, position):
        kept.append(text[position : opening.start()])
        position = opening.end()
        name = opening[1].lower()
        if not opening[2] and name not in unclosed:
            if closing := re.compile(rf"</{name}\s*>", re.IGNORECASE).search(text, position):
                position = closing.end()
            else:
                unclosed.add(name)  # or each opening would search the rest of the text again
    return "".join([*kept, text[position:]])


def drop_brackets(text: str, hidden_link: re.Pattern[str]) -> str:
    """The text without templates, tables, hidden links, and double brackets that have no partner.

    Of a tangle, a closing bracket ends the last one of its kind that is open; what was opened inside has no partner.

    >>> drop_brackets("a{{b|{{c}}}} [[d]] [[File:e.jpg|[[f]]]]g }} {{h", compile_hidden(()))
    'a [[d]] g  h'
    """
    pieces: list[str] = []  # of the result; brackets have their own, and one without a partner is emptied
    opened: list[tuple[str, int]] = []  # kind, place in `pieces`
    counts = dict.fromkeys(PARTNER.values(), 0)
    position, stray = 0, 0
    for bracket in BRACKET.finditer(text):
        pieces.append(text[position : bracket.start()])
        position = bracket.end()
        kind = bracket[0].lstrip(" \t:*")
        if kind in counts:
            opened.append((kind, len(pieces)))
            counts[kind] += 1
            pieces.append("")
        elif not counts[PARTNER[kind]]:
            stray += 1
        else:
            other, place = opened.pop()
            while other != PARTNER[kind]:
                stray, counts[other] = stray + 1, counts[other] - 1
                other, place = opened.pop()
            counts[other] -= 1
            if kind != "]]" or hidden_link.match("".join(pieces[place + 1 : place + 3])):
                del pieces[place:]
            elif counts["[["] < MAX_DEPTH:
                pieces[place] = "[["
                pieces.append("]]")
    check_count(stray + len(opened), MAX_STRAY, "brackets without a partner")
    return "".join([*pieces, text[position:]])


def choose_variant(variants: re.Match[str]) -> str:
    """Of words in several scripts the first.

    >>> VARIANTS.sub(choose_variant, "-{zh-hans:茶叶; zh-hant:茶葉}- -{T|茶}-")
    '茶叶 茶'
    """
    first = variants[1].partition(";")[0]
    return re.sub(r"^\s*(?:[^:]*=>)?\s*[a-z-]{2,10}\s*:", "", first)


def check_count(count: int, limit: int, noun: str) -> None:
    """Raise TooComplexError where there are more than so many."""
    if count > limit:
        raise TooComplexError(f"{count} {noun}, the limit is {limit}")


def strip_line(line: str) -> tuple[int, str]:
    """The level of a line's heading, 0 where it is none, and its text."""
    if line.startswith(("|", "!")):  # of a table whose beginning is lost
        return 0, ""
    level = 0
    if heading := HEADING.fullmatch(line):
        level, line = len(heading[1]), heading[2]
    elif bullets := BULLETS.match(line):
        line = line[bullets.end() :]
    if MARKUP.search(line):
        line = "".join(write_nodes(import_parser().parse(line, skip_style_tags=False).nodes))
    return level, line.strip()


def write_nodes(nodes: Iterable[Any]) -> Iterator[str]:
    """The text that the nodes of mwparserfromhell's tree show."""
    kinds = import_parser().nodes
    for node in nodes:
        if isinstance(node, kinds.Text):
            yield node.value
        elif isinstance(node, kinds.HTMLEntity):
            yield node.normalize()
        elif isinstance(node, kinds.Wikilink):
            shown = node.title if node.text is None else node.text
            yield "".join(write_nodes(shown.nodes)).removeprefix(":")
        elif isinstance(node, kinds.ExternalLink):
            shown = node.title if node.brackets else node.url
            yield from write_nodes(shown.nodes if shown is not None else ())
        elif isinstance(node, kinds.Tag):
            yield from write_nodes(node.contents.nodes if node.contents is not None else ())


def drop_empty_headings(lines: Iterable[tuple[int, str]]) -> Iterator[str]:
    """The texts of lines, but of headings that have no text below them.

    >>> list(drop_empty_headings([(0, "Tea."), (2, "Kinds"), (3, "Green"), (0, "It is."), (2, "Sources"), (0, "")]))
    ['Tea.', '', 'Kinds', '', 'Green', 'It is.']
    """
    waiting: list[tuple[int, str]] = []
    for level, line in lines:
        if level:
            waiting = [(above, heading) for above, heading in waiting if above < level]
            waiting.append((level, line))
        elif line:
            for _, heading in waiting:
                yield from ("", heading)
            waiting = []
            yield line
        elif not waiting:
            yield line


@functools.cache
def import_parser() -> types.ModuleType:
    """mwparserfromhell. Raises UserError where it is not installed."""
    try:
        import mwparserfromhell
    except ImportError as error:
        raise UserError(
            f"reading wikitext expected the package mwparserfromhell. Received: {error}. "
            "pip install 'tf_llm[wikipedia]'"
        ) from error
    return mwparserfromhell
