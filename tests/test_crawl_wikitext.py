"""Wikitext into prose: what readers see stays, and what strangers can write takes no time."""

import doctest
import random
import time

import pytest

pytest.importorskip("mwparserfromhell", reason="needs tf_llm[wikipedia]")

from tf_llm.crawl import wikitext
from tf_llm.crawl.wikitext import TooComplexError, strip_wikitext


def test_docstring_examples():
    result = doctest.testmod(wikitext)
    assert result.attempted >= 5 and result.failed == 0


ARTICLE = """{{Short description|Hot drink}}
{{Infobox drink
| name = Tea
| image = [[File:Tea.jpg|thumb|A [[cup]] of tea]]
| origin = {{flag|China|size={{px|20}}}}
|}}
[[File:Tea leaves.jpg|thumb|right|The [[leaf|leaves]] of
''Camellia''.<ref>Book.</ref>]]
'''''Tea''''' ({{IPA|tiː}}; also ''cha'') is a drink.<ref name="a" /> <!-- {{ check -->It is<ref name="b">{{cite
|title=Tea}}</ref> made of [[Camellia sinensis|leaves]], [[water]]s &amp; [https://a.example/ patience].
__NOTOC__
== Kinds ==
=== Green ===
* [[Green tea]] &mdash; '''steamed'''
** [[Sencha]]
# One
; Term : its meaning
{| class="wikitable"
! Kind !! Cups
|-
| Green || {{num|7}}
{| nested
| table
|}
|}
A line<br />and<br>another with E = mc<sup>2</sup> <math>\\sum_{i}</math>.

=== Red ===
<gallery>
File:Red.jpg|Red
</gallery>

== References ==
{{reflist}}
<references />
[[Category:Tea]] [[fr:Thé]]
[[:Category:Drinks|Drinks]] at http://tea.example/ [http://b.example/]
"""


def test_an_article():
    assert strip_wikitext(ARTICLE) == (
        "Tea (also cha) is a drink. It is made of leaves, waters & patience.\n\n"
        "Kinds\n\nGreen\nGreen tea — steamed\nSencha\nOne\nTerm : its meaning\n\n"
        "A line\nand\nanother with E = mc2 .\n\nReferences\nDrinks at http://tea.example/"
    )


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("", ""),
        ("plain text, a < b and {c}", "plain text, a < b and {c}"),
        ("it's ''Iliad'''s hero", "it's Iliad's hero"),
        ("[[Bus]]es [[a|''b'' c]] [[a#b|]]", "Buses b c"),
        ("<nowiki>[[no]] ''link'' {{at}} all</nowiki>", "[[no]] ''link'' {{at}} all"),
        ("a<ref>open for ever", "aopen for ever"),
        ("a {{b {{c}} d", "a b  d".replace("  ", " ")),
        ("a }} b ]] c", "a  b ]] c".replace("  ", " ").replace("]] ", "")),
        ("[[File:a.jpg|[[b]] {{c]] d", "d"),
        ("{{a|[[b}} c]] d", "c d"),
        ("{|\n| a\n{{b\n|}\nc", "c"),
        ("{{a\n| b\n|}}c", "c"),
        ("| left of a table\nc", "c"),
        ("<div class='a'>b</div>\n----\n<blockquote>c</blockquote>", "b\n\nc"),
        ("== A ==\n== B ==\nc", "B\nc"),
        ("== A ==\n=== B ===\nc\n== D ==\n", "A\n\nB\nc"),
        ("-{zh-hans:茶叶; zh-hant:茶葉}-和-{水}-", "茶叶和水"),
        ("<code>x</code>y<SYNTAXHIGHLIGHT lang='c'>z</SyntaxHighlight>", "y"),
        ("[mailto:a@b.example write] [//c.example d] [not a link]", "write d [not a link]"),
        ("__KEIN_INHALTSVERZEICHNIS__ a __NOEDITSECTION__", "__KEIN_INHALTSVERZEICHNIS__ a"),
        ("&#91;&nbsp;&eacute;&#x41;", "[\xa0éA"),
    ],
)
def test_one_thing_at_a_time(markup, text):
    assert strip_wikitext(markup) == text


def test_namespaces_of_other_languages():
    markup = "[[Datei:A.jpg|mini|Ein [[Bild]]]]Tee[[Kategorie:Tee]] [[File:B.jpg]][[datei: C.jpg]]"
    assert strip_wikitext(markup, hidden=["Datei", "Kategorie"]) == "Tee"
    assert "mini" in strip_wikitext(markup)


HOSTILE = {
    "ref without an end": '<ref name="' * 2_000,
    "templates": "{{" * 100_000,
    "templates with values": "{{a|b=" * 100_000,
    "links": "[[a|" * 100_000,
    "links in links": "[[a|" * 50_000 + "]]" * 50_000,
    "addresses": "[http://a " * 50_000,
    "tables": "\n{|" * 100_000,
    "attributes": '<b a="" ' * 100_000,
    "comments": "<!--" * 100_000,
    "tags": "<div>" * 100_000,
    "brackets in two kinds": "{{a|[[b|" * 50_000,
    "links one by one": "[[a]]" * 100_000,
    "lines of links": "[http://a \n" * 100_000,
    "apostrophes": "''a'''b" * 100_000,
    "entities": "&lt;" * 200_000,
    "empty brackets": "(" * 300_000,
    "blanks": " " * 200_000 + "a" + "\n" * 200_000,
    "no wiki": "<nowiki>[" * 30_000,
    "templates that are made": "{<!-- -->{a|" * 50_000,
    "brackets around templates": "{{{x}}{a|" * 50_000,
    "headings": "==a==\n" * 30_000,
    "long": "word " * 1_000_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_no_text_takes_long(text):
    begin = time.process_time()
    try:
        strip_wikitext(text)
    except TooComplexError as error:
        assert "the limit is" in str(error)
    assert time.process_time() - begin < 2


@pytest.mark.parametrize("name", ["ref without an end", "templates", "links", "addresses", "links one by one", "long"])
def test_a_tangle_is_refused(name):
    with pytest.raises(TooComplexError, match=r"^\d+ [a-z ]+, the limit is \d+$"):
        strip_wikitext(HOSTILE[name])


def test_random_tangles():
    draw = random.Random(5)
    pieces = (
        "{{ }} [[ ]] {| |} | \n == '' ''' <ref> </ref> <!-- --> <nowiki> </nowiki> [http://a ] File: a : * -{ }- &amp;"
    )
    for _ in range(300):
        text = "".join(draw.choices([*pieces.split(" "), " ", "\n"], k=draw.randint(1, 60)))
        assert isinstance(strip_wikitext(text), str)
