"""What a bot is taught: facts, phrasings, conversations of others; bad rows are counted."""

import ast
import csv
import doctest
import json
import sys
import types
from collections import Counter

import numpy as np
import pytest

from tf_llm.apps.chatbot import dialogues, fact_search, facts, faq, phrasings, words
from tf_llm.apps.chatbot.chatbot import Chatbot, Turn
from tf_llm.apps.chatbot.dialogues import Message, make_pairs, parse_messages, read_dialogues
from tf_llm.apps.chatbot.fact_search import FactSearch
from tf_llm.apps.chatbot.facts import Fact, summarise
from tf_llm.apps.chatbot.faq import Faq
from tf_llm.apps.chatbot.phrasings import HELD_OUT, TRAINED, make_lessons, phrase_often
from tf_llm.apps.chatbot.training import MEMORY
from tf_llm.contracts import UserError
from tf_llm.crawl.self_crawl import list_modules

HI = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}


@pytest.fixture(scope="module")
def python_facts():
    """Of a few modules; all of them take some seconds."""
    modules = ("textwrap", "statistics", "platform", "zipfile", "calendar", "string")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(facts, "list_modules", lambda package: (m for m in list_modules(package) if m[0] in modules))
        return facts.collect_facts(["python"])


@pytest.mark.parametrize("module", [dialogues, fact_search, faq, phrasings, words])
def test_docstring_examples(module):
    result = doctest.testmod(module, extraglobs={"Fact": Fact})
    assert not result.failed and result.attempted


def test_docstring_examples_of_facts(python_facts, monkeypatch):
    """With those that are collected already."""
    globs = vars(facts) | {"collect_facts": lambda packages: python_facts}
    runner = doctest.DocTestRunner()
    for test in doctest.DocTestFinder().find(facts, globs=globs):
        runner.run(test)
    assert runner.summarize().failed == 0


# === Facts ===


def test_facts_of_this_python(python_facts):
    by_name = {fact.name: fact for fact in python_facts}
    assert len(by_name) == len(python_facts) > 500
    assert by_name["math.sqrt"].summary == "Return the square root of x."
    assert by_name["len"].kind == "function" and by_name["str.split"].kind == "method"
    for fact in python_facts:
        assert not any(part.startswith("_") for part in fact.name.split("."))
        assert len(fact.summary.split()) >= facts.LEAST_WORDS and "\n" not in fact.summary
        assert fact.address.startswith("https://documentation.invalid/python/")
        assert fact.address.endswith(f"#{fact.name}")
    # What a summary says stands in the documentation itself.
    assert "".join(by_name["textwrap.dedent"].summary.split()) in "".join(by_name["textwrap.dedent"].passage.split())


@pytest.mark.parametrize(
    "docstring, summary",
    [
        ("Add. And more.", None),  # one word is no summary
        ("Return i.e. one thing. Then another.", "Return i.e. one thing."),
        ("f(x) -> y\n\nReturn the y of x.", "Return the y of x."),
        ("Take :class:`~a.B` and ``c``.", "Take a.B and c."),
        (">>> f(1) is not a summary", None),
        ("x" * 30 + " is " + "y" * 80, None),
    ],
)
def test_a_summary_is_one_sentence_that_stands_for_the_whole(docstring, summary):
    assert summarise(docstring, "m.f") == summary


def test_public_names_are_those_that_decorators_say():
    sources = {
        "@set_module('numpy')\ndef f(): 0": ("numpy.lib._x", "numpy.f"),
        "@array_function_dispatch(_f_dispatcher)\ndef f(): 0": ("numpy.fft._pocketfft", "numpy.fft.f"),
        "@functools.cache\ndef f(): 0": ("a.src.b", None),
        "async def f(): 0": ("a.b", "a.b.f"),
    }
    for source, (module, name) in sources.items():
        assert facts.name_publicly(module, ast.parse(source).body[0]) == name


# === Phrasings ===


def test_held_out_templates_are_never_taught():
    assert not {t.lower() for t in HELD_OUT} & {t.lower() for t in TRAINED}
    fact = Fact("a.b", "function", "Do a thing.", "", "")
    # The words of a template without the name, its capital and its sign; an opening may stand in front of them.
    cores = [template.replace("{name}", " ").strip("?. :").lower() for template in HELD_OUT]
    prompts = [prompt.replace("a.b()", " ").replace("a.b", " ").lower() for prompt, _ in make_lessons([fact] * 20)]
    assert not [(core, prompt) for core in cores for prompt in prompts if core in prompt]
    asked = phrase_often("a.b", len(TRAINED) * 2, np.random.default_rng(0))
    assert all("a.b" in question for question in asked)


def test_lessons_are_asked_in_the_form_in_which_the_bot_asks():
    """Questions behind others: each lesson's prompt is what a bot would make of the same turns."""
    taught = [Fact(name, "function", f"Do {name} well.", "", "") for name in ("a.b", "c.d")]
    lessons = list(make_lessons(taught, 16))
    bot = Chatbot(
        types.SimpleNamespace(source_length=10_000, config=None, tokenizer=types.SimpleNamespace(encode=list))
    )
    seen = Counter()
    for prompt, answer in lessons:
        turns = [part.split("\nassistant:") for part in prompt.split("user: ")[1:]]
        bot.turns = [Turn(asked, said.strip()) for asked, said in turns] or [Turn(prompt)]
        assert bot.pack().prompt == prompt and len(turns) <= MEMORY + 1
        if answer.startswith("Do"):  # the answer is that of the name that is asked for, or that was spoken of last
            names = [name for name in ("a.b", "c.d") if name in bot.turns[-1].question]
            assert answer == (f"Do {names[0]} well." if names else bot.turns[-2].answer)
        seen[len(bot.turns), answer.startswith("Do")] += 1
    assert seen[1, True] == 2 * (16 + 8) and seen[2, True] and seen[3, True]
    assert seen[2, False] + seen[3, False] == 2


# === Looking up ===


def test_names_are_found_as_they_are_written_and_by_their_words(python_facts):
    search = FactSearch(python_facts)
    assert search.find("What is the purpose of textwrap.dedent()?")[0].name == "textwrap.dedent"
    assert search.find("what does any do?")[0].name == "any"
    assert search.find("help math.sqrt")[0].name == "math.sqrt"
    assert "math.sqrt" in [fact.name for fact in search.find("the square root of a number")]
    assert search.find("Who won the football cup yesterday evening?") == []
    assert search.find("") == []


def test_a_search_engine_can_be_asked_in_its_place():
    hits = [
        types.SimpleNamespace(address=f"a{n}", snippet=types.SimpleNamespace(text=text)) for n, text in enumerate("x y")
    ]
    asked = []
    index = types.SimpleNamespace(
        search=lambda *query, **more: asked.append((query, more)) or types.SimpleNamespace(hits=hits)
    )
    assert fact_search.look_up_in(index, 3)("what?") == [("x", "a0"), ("y", "a2")]  # a page without text is none
    assert asked == [(("what?",), {"count": 3})]


# === FAQ ===


def write_csv(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_answers_of_a_faq_are_word_for_word_those_of_the_file(tmp_path):
    path = write_csv(
        tmp_path / "f.csv", '\ufeffid,Question,ANSWER\n1,"Where, is it?","Here, ""there"".\nSecond line"\n'
    )
    assert Faq.open(path).find("where is it").answer == 'Here, "there".\nSecond line'


@pytest.mark.parametrize("limit", [131_072, 1 << 20], ids=["usual", "as crawl/tables.py leaves it"])
def test_bad_rows_of_a_faq_are_counted_and_the_rest_is_used(tmp_path, limit):
    before = csv.field_size_limit(limit)  # of the whole process
    rows = ["question,answer", "How do I pay?,By card.", "alone", ",Yes.", "", f"long,{'x' * 200_000}", "And now?,\x00"]
    faq_ = Faq.open(write_csv(tmp_path / "f.csv", "\n".join(rows) + "\n"))
    csv.field_size_limit(before)
    assert ("How do I pay?", "By card.") in faq_.rows
    assert faq_.rejections == Counter({"no answer": 1, "no question": 1, "bad CSV": 1}) + Counter(
        {"bad CSV": 1} if ("And now?", "\x00") not in faq_.rows else {}
    )


@pytest.mark.parametrize(
    "content, message",
    [
        (None, r"expected questions and answers in .*f\.csv\. Received: No such file"),
        ("", r"expected a column 'question' in .*f\.csv\. Received: an empty file\. Name a CSV file"),
        ("question;answer\na;b\n", r"expected a column 'question' in .*Received: 'question;answer'"),
        ("question,answer\n,b\n", r"Received: 1 × no question\. Name a CSV file"),
    ],
)
def test_a_file_that_is_no_faq_is_refused(tmp_path, content, message):
    if content is not None:
        write_csv(tmp_path / "f.csv", content)
    with pytest.raises(UserError, match=message):
        Faq.open(tmp_path / "f.csv")


def test_two_answers_that_are_as_near_go_to_a_person():
    asked = Faq([("Can I return shoes?", "Yes."), ("Can I return socks?", "No.")])
    assert asked.find("Can I return shoes?").is_sure
    assert not asked.find("Can I return it?").is_sure


def test_the_threshold_is_the_lowest_at_which_enough_is_right():
    rows = [(f"where is {word} kept", f"{word} answer") for word in ("red", "green", "blue")]
    one = Faq(rows)
    examples = [("where is red kept", "red answer"), ("red kept somewhere", "red answer"), ("red wine", None)]
    confidences = [one.find(question).confidence for question, _ in examples]
    assert confidences[0] > confidences[1] > confidences[2]
    assert one.choose_threshold(examples, precision=1.0) == confidences[1]
    assert [one.find(question).is_sure for question, _ in examples] == [True, True, False]
    assert one.choose_threshold(examples, precision=0.6) == confidences[2]
    # From the file itself: a question whose answer is under no other one should go to a person.
    two = Faq([("pay by card", "Yes."), ("can one pay by card", "Yes."), ("do you sell cats by post", "No.")])
    assert 0 < two.choose_threshold(precision=1.0) <= two.measure("can one pay by card")[0]


def test_vectors_count_as_much_as_words():
    """Paraphrases without a word in common, told by vectors alone."""
    places = {"How do I pay?": [1, 0, 5], "Where are you?": [0, 1, 5], "means of settlement": [0.9, 0.1, 5]}

    def embed(texts):
        vectors = np.array([places[text] for text in texts], "float32")
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    rows = [("How do I pay?", "By card."), ("Where are you?", "Here.")]
    match = Faq(rows, embed).find("means of settlement")
    assert match.answer == "By card." and 0.3 < match.confidence <= 0.5
    assert Faq(rows).find("means of settlement") is None


# === Conversations of others ===


def write_lines(path, rows):
    path.write_bytes(b"\n".join(row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows))
    return path


def test_messages_of_openai_and_why_some_are_none(tmp_path):
    def talk(*messages):
        return {"messages": [{"role": role, "content": text} for role, text in messages]}

    parts = {"role": "user", "content": [{"type": "text", "text": "Two "}, {"type": "text", "text": "parts"}]}
    rows = [
        HI,
        {"messages": [parts, {"role": "assistant", "content": "Yes", "weight": 0}, *HI["messages"]]},
        b"{not json",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[1, 2]",
        {"text": "Hi"},
        {"messages": "Hi"},
        {"messages": []},
        {"messages": ["Hi"]},
        talk(("user", "Hi"), ("robot", "Hello")),
        talk(("user", "Hi")),
        talk(("assistant", "Hello"), ("user", "Hi")),
        talk(("user", "Hi"), ("assistant", "  ")),
        talk(("user", "Hi"), ("assistant", None)),
        {"messages": [{"role": ["user"], "content": "Hi"}]},
        {"messages": [*HI["messages"], {"role": "tool", "content": "3"}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, *HI["messages"]]},
        b'{"messages": "' + b"x" * dialogues.MAX_LINE + b'"}',
    ]
    rejections = Counter()
    found = list(read_dialogues(write_lines(tmp_path / "d.jsonl", rows), rejections))
    assert found[0] == (Message("user", "Hi"), Message("assistant", "Hello"))
    assert found[1][0].text == "Two parts" and [message.is_learned for message in found[1]] == [True, False, True, True]
    assert len(found) == 2
    assert rejections == {
        "bad JSON": 3,
        "no object": 1,
        "no messages": 3,
        "a message that is no object": 1,
        "a role that is unknown": 2,
        "no answer to a user": 2,
        "a message without text": 3,
        "a tool's message": 1,
        "too large": 1,
    }


def test_a_file_without_conversations_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"expected conversations in .*d\.jsonl\. Received: 1 × bad JSON\."):
        list(read_dialogues(write_lines(tmp_path / "d.jsonl", [b"?"])))
    with pytest.raises(UserError, match=r"expected conversations in .*none\.jsonl\. Received: No such file"):
        list(read_dialogues(tmp_path / "none.jsonl"))


def test_pairs_are_packed_as_the_bot_packs_them():
    talk = parse_messages(
        [
            {"role": role, "content": text}
            for role, text in (
                ("system", "Be brief."),
                ("assistant", "Welcome."),
                ("user", "One?"),
                ("assistant", "Two."),
                ("user", "Three?"),
                ("assistant", "Four."),
            )
        ]
    )
    counts = Counter()
    pairs = list(make_pairs([talk], len, 200, counts))
    assert [answer for _, answer in pairs] == ["Two.", "Four."]  # a greeting answers nobody
    assert pairs[1][0] == "system: Be brief.\nuser: One?\nassistant: Two.\nuser: Three?\nassistant:" or (
        pairs[1][0].endswith("user: One?\nassistant: Two.\nuser: Three?\nassistant:")
    )
    ((_, short),) = [(answer, prompt) for prompt, answer in make_pairs([talk], len, 40, counts) if answer == "Four."]
    assert short == "Three?" or len(short) <= 40
    assert counts["answers"] == 4 and counts["turns left out"] > 0 and counts["questions cut"] == 0
    unlearned = (
        Message("user", "a"),
        Message("assistant", "b", False),
        Message("user", "c"),
        Message("assistant", "d"),
    )
    assert [answer for _, answer in make_pairs([unlearned], len, 99)] == ["d"]


def test_yaml_of_chatterbot(tmp_path, monkeypatch):
    pytest.importorskip("yaml")
    (tmp_path / "a.yml").write_text(
        "categories: [a]\nconversations:\n- [Hi, Hello, How are you, Fine]\n- [alone]\n- [Is it, yes]\n- text\n"
        "- [a, [b]]\n"
    )
    bombs = "a: &a [x, x]\n" + "".join(
        f"{c}: &{c} [*{p}, *{p}, *{p}]\n" for p, c in zip("abcdefghi", "bcdefghij", strict=True)
    )
    (tmp_path / "bomb.yml").write_text(f"{bombs}conversations: [*j, *j, *j]\n")
    (tmp_path / "code.yml").write_text("conversations: !!python/object/apply:os.system ['false']\n")
    (tmp_path / "date.yml").write_text("conversations: [[2001-99-99, b]]\n")
    (tmp_path / "deep.yml").write_text("[" * 5000)
    (tmp_path / "other.yml").write_text("- 1\n")
    rejections = Counter()
    (found,) = read_dialogues(tmp_path, rejections)
    assert [message.text for message in found] == ["Hi", "Hello", "How are you", "Fine"]
    assert [message.role for message in found] == ["user", "assistant"] * 2
    assert rejections == {
        "no answer to a user": 2,
        "a message without text": 2 + 3,
        "bad YAML": 3,
        "no conversations": 1,
    }
    monkeypatch.setitem(sys.modules, "yaml", None)  # an import of it fails
    with pytest.raises(UserError, match=r'expected the package PyYAML\. .*pip install "tf_llm\[chatbot\]"'):
        list(read_dialogues(tmp_path / "a.yml"))


def test_real_yaml_of_chatterbot(shared_data):
    pytest.importorskip("yaml")
    rejections = Counter()
    found = list(read_dialogues(shared_data / "dialogue" / "chatterbot_english", rejections))
    assert len(found) > 2_000 and rejections == {"no answer to a user": 1}  # somebody who says "Yellow." to himself


def test_rows_of_data_sets_in_three_forms():
    share = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    rows = [
        HI,
        {"conversations": share},
        {"question": "Hi", "answer": "Hello"},
        {"prompt": "Hi", "completion": "Hello"},
    ]
    for row in [*rows, {"id": 1, "mine": HI["messages"], "messages": None}]:
        column = "mine" if "mine" in row else None
        assert dialogues.parse_row(row, column) == (Message("user", "Hi"), Message("assistant", "Hello"))
    with pytest.raises(dialogues.BadDialogueError, match="a message without text"):
        dialogues.parse_row({"question": "Hi", "answer": ""})
    with pytest.raises(dialogues.BadDialogueError, match="no messages"):
        dialogues.parse_row({"text": "Hi", "question": "Hi"})


def test_a_data_set_is_read(tmp_path):
    pytest.importorskip("datasets")
    (tmp_path / "mine").mkdir()
    write_lines(tmp_path / "mine" / "train.jsonl", [HI, {"messages": []}])
    rejections = Counter()
    assert list(read_dialogues(str(tmp_path / "mine"), rejections)) == [
        (Message("user", "Hi"), Message("assistant", "Hello"))
    ]
    assert rejections == {"no messages": 1}
