"""C4's rules: one funny sentence for each and each outcome."""

import doctest
from collections import Counter

import pytest

from tf_llm.contracts import Document, Rejected
from tf_llm.text import c4, scripts
from tf_llm.text.c4 import C4, count_sentences
from tf_llm.text.scripts import count_words, split_words

URL = "http://cats.example/"
# Three sentences that every page needs, and that no rule minds.
PROSE = "The cat has a hat. It also has a plan. The plan has three parts."


def clean(*lines, rule=None):
    edits = Counter()
    result = (rule or C4())(Document(URL, "\n".join(lines)), edits)
    return result, dict(edits)


@pytest.mark.parametrize("module", [c4, scripts])
def test_docstring_examples(module):
    result = doctest.testmod(module)
    assert result.attempted > 3 and result.failed == 0


@pytest.mark.parametrize(
    "line",
    [
        "Why does the cat wear a hat?",
        "Because it is raining in the kitchen!",
        'The mouse said: "I can see that."',
        'What the mouse "saw and the cat "did"',  # any straight quotation mark will do
        "The cat drank tea.... then it drank more.",
        "This is five words exactly.",
        "  Blanks around a sentence cost nothing.  ",
        "The lorem of the ipsum is not Latin.",
        f"A word of {'m' * 1000}iao is too long, but without the end it is not.".replace("iao", ""),
        "Scripts of Java are about an island.",
    ],
)
def test_lines_that_are_kept(line):
    result, edits = clean(PROSE, line)
    assert result.text == f"{PROSE}\n{line.strip()}" and not edits


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("Home | Cats | Hats | About the cat", "no end mark"),
        ("The cat fell asleep while it was…", "no end mark"),
        ("The cat fell asleep while it was...", "no end mark"),
        ("The cat's favourite word of all is 'tea'", "no end mark"),
        ("The cat has a list: fish, tea;", "no end mark"),
        ("Only four words here.", "short line"),
        ("Miau!", "short line"),
        (f"The cat said {'m' * 1001}iao for an hour.", "long word"),
        ("Please switch on JavaScript to see the cat.", "javascript"),
        ("The cat reads nobody's Privacy Policy at all.", "policy"),
        ("By sitting here you accept the terms of use.", "policy"),
        ("This cat uses cookies to feel better now.", "policy"),
        ("We make use of cookies, mostly with raisins.", "policy"),
        ("Our cookie policy is to eat them all.", "policy"),
        ("Cats that use cookies drink no milk.", "policy"),
    ],
)
def test_lines_that_are_dropped(line, reason):
    result, edits = clean(PROSE, line, PROSE)
    assert result.text == f"{PROSE}\n{PROSE}" and edits == {f"c4: {reason}": 1}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Cats sleep for sixteen hours.[1][23]", "Cats sleep for sixteen hours."),
        ("The cat[] slept[citation needed] on the hat.", "The cat slept on the hat."),
        ("History of hats[edit] is told by cats.", "History of hats is told by cats."),
    ],
)
def test_marks_of_citations_are_taken_out(before, after):
    result, edits = clean(PROSE, before)
    assert result.text == f"{PROSE}\n{after}" and edits == {"c4: citation mark": before.count("[")}
    untouched = "The cat [sic] sat on the [note 4] hat."
    assert clean(PROSE, untouched)[0].text == f"{PROSE}\n{untouched}"


@pytest.mark.parametrize(
    ("lines", "reason", "detail"),
    [
        ([PROSE, "The cat wrote Lorem Ipsum all over the wall."], "lorem ipsum", ""),
        ([PROSE, "A cat is a function {miau} of the milk."], "curly bracket", ""),
        (["The cat has a hat. It also has a plan."], "few sentences", "2 of at least 3"),
        (["Home", "About"], "few sentences", "0 of at least 3"),
        ([""], "few sentences", "0 of at least 3"),
        (["The cat sat on the hat. " * 8_000], "too long", "192000 characters"),
    ],
)
def test_pages_that_are_rejected(lines, reason, detail):
    assert clean(*lines)[0] == Rejected(URL, f"c4: {reason}", detail)


def test_only_lines_that_would_be_kept_can_reject_a_page():
    """The order of the published code: brackets and Latin in a menu, or behind JavaScript, do no harm."""
    for line in ("{menu}", "Lorem ipsum {", "Use JavaScript { to see the cat in its hat."):
        assert clean(PROSE, line)[0].text == PROSE
    assert clean(PROSE, "Use JavaScript for lorem ipsum in the hat.")[0].reason == "c4: lorem ipsum"


def test_sentences_are_counted_over_the_page():
    lines = ["The cat sat on the hat."] * 3
    assert clean(*lines)[0].text == "\n".join(lines)
    assert clean(*lines[:2])[0].reason == "c4: few sentences"
    assert clean(*lines[:2], rule=C4(sentences=2))[0].text == "\n".join(lines[:2])
    assert clean("Miau, miau.", PROSE, rule=C4(line_words=2))[0].text.startswith("Miau")


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("miau", 1),
        ("The cat sat. The mouse ran.", 2),
        ("The cat sat! Did it? Yes.", 3),
        ("Dr. Cat and Mrs. Mouse met Prof. Dog.", 1),
        ("It was 5 p.m. The tea was cold.", 2),
        ("It was 5 p.m. in London.", 1),
        ("He lives in the U.S. with J. R. Cat.", 1),
        ('"Stop!" said the cat. "Why?" asked the mouse.', 4),  # so does Punkt
        ("The cat sat... and sat.", 1),
        ("The cat sat... The mouse ran.", 2),
        ("Tea costs 3.50 at cats.example today.", 1),
        ("(The cat sat.) The mouse ran.", 2),
        ("Tea, milk, etc. were gone.", 1),
        ("猫来了。狗走了！为什么？", 3),
        ("他说：“猫来了。”然后走了。", 2),
        ("هل القطة هنا؟ نعم، هي هنا.", 2),
        ("बिल्ली यहाँ है। चूहा वहाँ है।", 2),
        ("แมวนอนอยู่ หมาวิ่งไป", 2),
    ],
)
def test_sentences(text, count):
    assert count_sentences(text) == count


def test_other_scripts_count_in_full_or_not_at_all():
    chinese = ["这只猫戴着一顶很大的帽子。", "它今天早上有一个新的计划！", "计划是把所有的鱼都吃光吗？", "短句。"]
    result, edits = clean(*chinese)
    assert result.text == "\n".join(chinese[:3]) and edits == {"c4: short line": 1}
    assert clean(*chinese, rule=C4("english"))[0] == Rejected(URL, "c4: few sentences", "0 of at least 3")
    quoted = "The mouse said: “I can see that.”"
    assert clean(PROSE, quoted)[0].text.endswith(quoted)
    assert clean(PROSE, quoted, rule=C4("english"))[0].text == PROSE  # C4 knows the straight quotation mark only


@pytest.mark.parametrize(
    ("text", "words", "count"),
    [
        ("a cat", ["a", "cat"], 2),
        ("猫は黒い", ["猫", "は", "黒", "い"], 2),
        ("iPhone手机", ["iPhone", "手", "机"], 2),
        ("고양이가 잔다", ["고양이가", "잔다"], 2),
        ("猫，狗。", ["猫", "，", "狗", "。"], 1),
        ("кот спит", ["кот", "спит"], 2),
    ],
)
def test_words_of_all_scripts(text, words, count):
    assert split_words(text) == words and count_words(text) == count


def test_sentences_are_those_of_punkt_with_the_same_abbreviations(shared_data):
    """NLTK's own algorithm, which needs no download where it is told the abbreviations."""
    import gzip
    import json

    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

    parameters = PunktParameters()
    parameters.abbrev_types = set(c4.ABBREVIATIONS)
    parameters.sent_starters = set(c4.STARTERS)
    punkt = PunktSentenceTokenizer(parameters)
    with gzip.open(shared_data / "lm" / "web-en.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"][:5_000] for _, line in zip(range(60), lines, strict=False)]
    sentences = [line for text in texts for line in text.splitlines() if line.strip()]
    alike = sum(count_sentences(line, "english") == len(punkt.tokenize(line)) for line in sentences)
    assert len(sentences) > 500 and alike > 0.98 * len(sentences)
