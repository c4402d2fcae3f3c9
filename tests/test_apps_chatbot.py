"""A conversation on a scripted model: what is packed, said, stopped, tried again, looked up and handed over."""

import doctest
import itertools
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from scripted import ScriptedModel

from tf_llm.apps.chatbot import chatbot, notebook, packing, prompts, terminal
from tf_llm.apps.chatbot.chatbot import HAND_OVER, NOTHING_FOUND, Chatbot, Event, Passage
from tf_llm.apps.chatbot.faq import Faq
from tf_llm.apps.chatbot.packing import pack_messages
from tf_llm.apps.chatbot.prompts import STOPS, build_prompt
from tf_llm.apps.chatbot.terminal import chat
from tf_llm.contracts import UserError
from tf_llm.decoding.generator import Generator
from tf_llm.text.tokenizers import CharTokenizer

LETTERS = "abcdefghijklmnopqrstuvwxyz .:?\n"


@pytest.fixture(scope="module")
def generate():
    sizes = {"vocabulary_size": len(LETTERS) + 3, "source_length": 80, "target_length": 12}
    return Generator(ScriptedModel(5, end=-1.0, **sizes), CharTokenizer(LETTERS), "request")


def gather(events):
    """The answer, and the other events."""
    events = list(events)
    return "".join(event.text for event in events if event.kind == "piece"), [e for e in events if e.kind != "piece"]


@pytest.mark.parametrize("module", [chatbot, notebook, packing, prompts, terminal])
def test_docstring_examples(module):
    result = doctest.testmod(module, extraglobs={"Faq": Faq})
    assert not result.failed and result.attempted


# === Packing ===


def test_what_is_packed_is_the_longest_end_of_the_conversation_that_fits():
    """Against trying every beginning, for conversations and limits by chance."""
    random = np.random.default_rng(3)
    for _ in range(200):
        turns = int(random.integers(1, 6))
        messages = [("system", "s" * int(random.integers(1, 9)))] if random.random() < 0.5 else []
        for _ in range(turns):
            messages += [("user", "u" * int(random.integers(1, 20))), ("assistant", "a" * int(random.integers(1, 20)))]
        messages.pop()  # the last question is to be answered
        limit = int(random.integers(1, 160))
        system = [message for message in messages if message[0] == "system"]
        rest = messages[len(system) :]
        tries = [[*system, *rest[start:]] for start in range(0, len(rest), 2)] + [rest[-1:]]
        fitting = [kept for kept in tries if len(build_prompt(kept)[0]) <= limit]
        kept = fitting[0] if fitting else rest[-1:]
        packed = pack_messages(messages, len, limit)
        assert (packed.prompt, packed.stops) == build_prompt(kept)
        assert packed.dropped == len(messages) - len(kept)
        assert packed.excess == max(len(packed.prompt) - limit, 0)


def test_a_conversation_without_a_question_cannot_be_packed():
    with pytest.raises(ValueError, match=r"messages are expected to hold what is to be answered\. Received: none"):
        pack_messages([], len, 9)


# === The model answers ===


def test_pieces_joined_are_the_generators_own_answer(generate):
    bot = Chatbot(generate)
    said, others = gather(bot.ask("what?"))
    assert said == generate("what?") and others == []
    assert bot.turns[0].answer == said.strip()
    second, _ = gather(bot.ask("and b?"))
    prompt, stops = build_prompt([("user", "what?"), ("assistant", said.strip()), ("user", "and b?")])
    assert stops == STOPS and second == generate(prompt, stop_strings=stops)


def test_seed_and_temperature_decide_and_a_retry_has_the_next_seed(generate):
    bot = Chatbot(generate, seed=3, temperature=1.5)
    first, _ = gather(bot.ask("a"))
    assert first == generate("a", temperature=1.5, seed=3)
    again, _ = gather(bot.retry())
    assert again == generate("a", temperature=1.5, seed=4) != first
    assert [turn.answer for turn in bot.turns] == [again.strip()]
    bot.clear()
    bot.seed, bot.temperature = 9, 0.0
    assert gather(bot.ask("a"))[0] == generate("a")
    assert gather(bot.retry())[0] == generate("a", temperature=chatbot.RETRY_TEMPERATURE, seed=10)


def test_nothing_is_asked_of_nobody(generate):
    bot = Chatbot(generate)
    assert list(bot.ask("  \n")) == [] and list(bot.retry()) == [] and bot.turns == []
    with pytest.raises(ValueError, match=r"generate is expected to be a Generator where there is no faq"):
        Chatbot()


def test_a_notice_is_seen_when_turns_fall_out_and_when_a_question_is_too_long(generate):
    bot = Chatbot(generate)
    notices = [gather(bot.ask(f"a longer question {'abcdef'[n]}?"))[1] for n in range(4)]
    assert notices[0] == []
    dropped = [n for n in notices if n]
    assert dropped and all(n[0].kind == "notice" and "no longer sees the first" in n[0].text for n in dropped)
    _, (notice,) = gather(Chatbot(generate).ask("a" * 90))
    assert notice.text == "This is longer than the model can read, by 11 tokens."


def test_an_answer_is_stopped_where_it_is(generate):
    bot = Chatbot(generate)
    whole = generate("abc")
    assert len(whole) > 4
    events = bot.ask("abc")
    said = next(events).text + next(events).text
    bot.stop()
    rest, (notice,) = gather(events)
    assert rest == "" and notice == Event("notice", "Stopped.")
    assert whole.startswith(said) and bot.turns[0].answer == said.strip()
    assert gather(bot.ask("next"))[0]  # the next one is not stopped


def test_whoever_leaves_in_the_middle_leaves_a_sound_conversation(generate):
    bot = Chatbot(generate)
    events = bot.ask("abc")
    said = next(events).text
    events.close()
    assert bot.turns[0].answer == said.strip() and bot._stream is None
    assert gather(bot.retry())[0]


# === Pages and people ===


def test_a_passage_is_quoted_with_its_address_and_a_retry_has_the_next_one(generate):
    passages = [Passage("first.", "https://a.invalid/1"), Passage("second.", "https://a.invalid/2")]
    learned = []
    bot = Chatbot(generate, retrieve=lambda question: passages, learn=lambda *pair: learned.append(pair))
    assert list(bot.ask("q")) == [Event("piece", "first."), Event("source", "https://a.invalid/1")]
    assert list(bot.retry()) == [Event("piece", "second."), Event("source", "https://a.invalid/2")]
    assert bot.turns[0].address == "https://a.invalid/2"
    assert learned == [("q", "first."), ("q", "second.")]
    reading = Chatbot(generate, retrieve=lambda question: passages, reads_passages=True)
    said, sources = gather(reading.ask("q"))
    assert said == generate("first.\nq") and sources == [Event("source", "https://a.invalid/1")]


def test_where_no_page_is_found_the_model_says_so_and_answers(generate):
    said, (notice,) = gather(Chatbot(generate, retrieve=lambda question: []).ask("abc"))
    assert notice == Event("notice", NOTHING_FOUND) and said == generate("abc")


def test_a_faq_is_quoted_or_a_person_is_asked_and_no_model(generate):
    bot = Chatbot(generate, faq=Faq([("How do I pay?", "By card, **not** by <b>cheque</b>.")]))
    assert list(bot.ask("how can I pay")) == [Event("piece", "By card, **not** by <b>cheque</b>.")]
    assert list(bot.retry()) == [Event("person", HAND_OVER)]
    assert list(bot.ask("Is there life on Mars?")) == [Event("person", HAND_OVER)]


# === The terminal ===


def talk(bot, lines, learner=None):
    lines, shown = iter(lines), []

    def read_line(prompt):
        line = next(lines, None)
        if line is None:
            raise EOFError
        return line

    chat(bot, learner, read_line, shown.append)
    return "".join(shown)


def test_commands_do_what_they_say(generate):
    bot = Chatbot(generate)
    shown = talk(
        bot, ["abc", "/seed 7", "/temperature 0.5", "/retry", "/clear", "/seed x", "/temperature nan", "/what"]
    )
    assert (bot.seed, bot.temperature, bot.turns) == (7, 0.5, [])
    assert generate("abc") in shown and generate("abc", temperature=0.5, seed=8) in shown
    assert "/seed expects a number of at least 0. Received: 'x'" in shown
    assert "/temperature expects a number of at least 0. Received: 'nan'" in shown
    assert "/retry            another answer" in shown
    assert talk(bot, ["/quit", "abc"]) == ""
    looking = Chatbot(generate, retrieve=lambda question: [Passage("page.", "https://a.invalid/1")], looks_up=False)
    shown = talk(looking, ["abc", "/pages", "abc", "/pages"])
    assert shown.startswith(generate("abc"))
    assert "Answers are looked up.\npage.\nfrom https://a.invalid/1\nAnswers come from memory.\n" in shown
    undone = types.SimpleNamespace(undo=lambda: True, drift=0.25)
    assert talk(bot, ["/undo"], undone) == "Unlearned. Drift 0.2500.\n\n"


def test_ctrl_c_stops_the_answer_and_not_the_talk(generate):
    class Interrupted(Chatbot):
        def ask(self, question):
            self.turns.append(chatbot.Turn(question))
            yield Event("piece", "half")
            raise KeyboardInterrupt

    assert talk(Interrupted(generate), ["a", "/seed 1"]) == "half\nnote: Stopped.\nThe seed is 1.\n\n"


def test_what_is_said_cannot_steer_the_terminal(generate):
    page = Passage("a\x1b]0;title\x07b\u202ec", "https://a.invalid/\x1b[2J")
    shown = talk(Chatbot(generate, retrieve=lambda question: [page]), ["q"])
    assert shown == "a]0;titlebc\nfrom https://a.invalid/[2J\n\n"


# === Notebooks ===


def test_a_page_of_gradio_gets_the_answer_as_it_grows_and_the_history_it_sends(generate):
    answer = notebook.build_function(lambda: Chatbot(generate))
    history = [{"role": "user", "content": [{"type": "text", "text": "one"}]}, {"role": "assistant", "content": "two"}]
    grown = list(answer("what?", history))
    bot = Chatbot(generate)
    bot.turns = [chatbot.Turn("one", "two")]
    assert grown[-1] == gather(bot.ask("what?"))[0] and len(grown) > 1
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(grown))
    assert notebook.read_history([("one", "two")]) == notebook.read_history(history) == [chatbot.Turn("one", "two")]
    person = notebook.build_function(lambda: Chatbot(faq=Faq([("How do I pay?", "By card.")])))
    assert list(person("Mars?", [])) == [HAND_OVER]


def test_without_gradio_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match=r'expected the package gradio\. .*pip install "tf_llm\[gradio\]"'):
        notebook.launch(None)


# === The example ===


@pytest.mark.thorough
def test_the_example_answers_from_a_faq_in_the_terminal(tmp_path):
    (tmp_path / "faq.csv").write_text('question,answer\nHow do I pay?,"By card, or not."\n')
    script = Path(__file__).resolve().parent.parent / "examples" / "chatbot.py"
    command = [sys.executable, str(script), f"--faq={tmp_path / 'faq.csv'}"]
    lines = "how can I pay?\n/retry\n"
    result = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "> By card, or not.\n> → I am not sure." in result.stdout
    missing = subprocess.run([*command[:2], "--faq=none.csv"], capture_output=True, text=True, timeout=120)
    assert missing.returncode == 1 and missing.stderr.endswith(
        "error: expected questions and answers in none.csv. Received: No such file or directory. "
        "Name a CSV file with the columns question and answer\n"
    )
