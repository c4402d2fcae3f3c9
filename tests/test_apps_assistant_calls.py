"""The notation of calls: what is written is read again, and nothing else is."""

import random

import pytest

from tf_llm.apps.assistant.calls import OUT_OF_SCOPE, Call, Utterance, format_call, parse_call

NASTY = ['"', "\\", "\n", "\r", "\t", "\0", "\x1b", "\x85", "\u2028", "\ud800", "n", "u", "0041", "=", ",", "(", ")"]
NASTY += ["é", "🙂", " ", "a", "\u200d", "__import__('os')"]


def test_a_call_is_one_readable_line():
    call = Call("set_reminder", (("text", 'say "hi"\\'), ("time", "at six\n")))
    assert format_call(call) == str(call) == r'set_reminder(text="say \"hi\"\\", time="at six\n")'
    assert str(Call("list_notes")) == "list_notes()"


def test_whatever_was_said_comes_back():
    draw = random.Random(1)
    for _ in range(2000):
        pairs = [
            (draw.choice(["a", "b.c", "_d1"]), "".join(draw.choices(NASTY, k=draw.randrange(8)))) for _ in range(3)
        ]
        call = Call("Tool.name_2", tuple(pairs[: draw.randrange(4)]))
        written = format_call(call)
        assert parse_call(written) == call and len(written.splitlines()) == 1


def test_spaces_between_the_parts_do_not_matter():
    assert parse_call(' f ( a = "1" ,b="2" ) ') == Call("f", (("a", "1"), ("b", "2")))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "a name at character 0"),
        ("1f()", "a name at character 0"),
        ("f", "( at character 1"),
        ("f(", "a slot at character 2"),
        ("f(a)", "= at character 3"),
        ("f(a='b')", "a string in quotation marks at character 4"),
        ('f(a="b)', "a string in quotation marks at character 4"),
        ('f(a="b",)', "a slot at character 8"),
        ('f(a="b" "c")', ", or ) at character 8"),
        ('f(a="b"); g()', "its end at character 8"),
        ('f(a=g("b"))', "a string in quotation marks at character 4"),
        (r'f(a="\x41")', r"one of the escapes \" \\ \n \r \t \u0000 at character 5"),
        (r'f(a="\u12")', r"one of the escapes \" \\ \n \r \t \u0000 at character 5"),
        ('f(a="b\nc")', "no control character at character 6"),
    ],
)
def test_what_is_no_call_is_refused_with_the_place(text, expected):
    with pytest.raises(ValueError) as error:
        parse_call(text)
    assert str(error.value) == f"a call is expected to have {expected}. Received: {text!r}"


def test_damaged_notation_is_read_or_refused():
    draw = random.Random(2)
    whole = r'set_reminder(text="say \"hi\" \u263a", time="at six")'
    for _ in range(2000):
        text = list(whole)
        for _ in range(draw.randrange(1, 4)):
            text[draw.randrange(len(text))] = draw.choice(NASTY)
        try:
            call = parse_call("".join(text))
        except ValueError as error:
            assert str(error).startswith("a call is expected to have ")
        else:
            assert parse_call(format_call(call)) == call


def test_a_name_that_could_not_be_written_is_refused():
    with pytest.raises(ValueError, match=r"have letters, digits, _ and \. Received: 'a b'"):
        Call("f", (("a b", "c"),))


def test_an_utterance_knows_its_call():
    said = Utterance("f", (("do ", None), ("x  y", "a"), (" and ", None), ("z", "b")))
    assert said.text == "do x  y and z" and said.call == Call("f", (("a", "x  y"), ("b", "z")))
    assert Utterance(OUT_OF_SCOPE, (("hum", None),)).call is None
