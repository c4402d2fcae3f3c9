"""`Generator` on a scripted model: whole, in pieces, alone, in company, with one setting and with many."""

import dataclasses
import doctest
import itertools

import numpy as np
import pytest
from scripted import ScriptedModel, build_scripted

from tf_llm.contracts import END_ID, PAD_ID, UNKNOWN_ID
from tf_llm.decoding import frames, rows, settings, streams, texts
from tf_llm.decoding.frames import FRAMES
from tf_llm.decoding.generator import PAGE_CONFIG, Generator
from tf_llm.decoding.settings import GenerationConfig

PROMPTS = ["abc", "", "f", "abcdefabc", "ba"]
LONG = {"max_new_tokens": 13}  # three windows of 5


@pytest.fixture(scope="module")
def generate():
    return build_scripted(3, end=-1.0)


@pytest.fixture(scope="module")
def answer():
    return build_scripted(3, frame="request")


@pytest.mark.parametrize("module", [frames, rows, settings, streams, texts])
def test_docstring_examples(module):
    result = doctest.testmod(module)
    assert result.failed == 0 and (result.attempted or module is streams)


def say_slowly(generate, prompt, max_new_tokens, choose):
    """One token after the other, in windows: `choose` has the log-probabilities and what was said, and says a token."""
    model, ids, said = generate.model, generate.tokenizer.encode(prompt), []
    while len(said) < max_new_tokens:
        source, window = FRAMES[generate.frame](ids + said, model.config.source_length, None), []
        while len(window) < model.config.target_length and len(said) < max_new_tokens:
            logs = model.log_probabilities(source, window)
            logs[[PAD_ID, UNKNOWN_ID]] = -np.inf
            window.append(choose(logs, said))
            said = [*said, window[-1]]
            if said[-1] == END_ID:
                return said
    return said


def likeliest(logs, said):
    return int(logs.argmax())


# === Whole, in pieces, alone, in company ===


def test_greedy_says_the_likeliest_in_windows(generate):
    said = generate.complete(PROMPTS, do_sample=False, log_probabilities=True, **LONG)
    assert [one.ids for one in said] == [say_slowly(generate, prompt, 13, likeliest) for prompt in PROMPTS]
    assert {len(one.ids) for one in said} > {13}  # some end by themselves
    for prompt, one in zip(PROMPTS, said, strict=True):
        assert one.finish_reason == ("stop" if one.ids[-1] == END_ID else "length")
        assert one.text == generate.tokenizer.decode(one.ids)
        with_end = one.finish_reason == "stop"
        assert generate.score(prompt, one.text, with_end) == pytest.approx(one.log_probabilities)
    (model, ids), logs = (generate.model, generate.tokenizer.encode("abc")), said[0].log_probabilities
    source = FRAMES["page"](ids + said[0].ids[:5], 6, None)  # of the second window
    by_hand = model.log_probabilities(source, said[0].ids[5:7])[said[0].ids[7]]
    assert logs[7] == pytest.approx(by_hand, abs=1e-4)


MIXED = [
    PAGE_CONFIG.with_settings(seed=1, **LONG),
    GenerationConfig(max_new_tokens=13),
    PAGE_CONFIG.with_settings(seed=2, temperature=2.0, top_k=0, top_p=0.9, max_new_tokens=7),
    PAGE_CONFIG.with_settings(seed=3, top_k=5, min_p=0.1, stop_strings=["a", "dd"], **LONG),
    PAGE_CONFIG.with_settings(seed=4, temperature=1.5, top_k=3, stop_strings="cf", **LONG),
]


def test_a_row_says_the_same_alone_and_in_company_and_in_pieces(generate):
    """Rows of unlike settings, lengths and stop strings; alone they run in other graphs."""
    whole = [generate(prompt, config) for prompt, config in zip(PROMPTS, MIXED, strict=True)]
    pieces = list(generate.stream_batch(PROMPTS, MIXED))
    assert ["".join(step[row].text for step in pieces) for row in range(5)] == whole
    assert "".join(generate.stream(PROMPTS[3], MIXED[3])) == whole[3]
    assert len({len(text) for text in whole}) > 2
    for row in range(5):  # each row says once why it ended, and nothing afterwards
        reasons = [step[row].finish_reason for step in pieces]
        (last,) = [i for i, reason in enumerate(reasons) if reason]
        assert not any(step[row].text for step in pieces[last + 1 :])
        one = generate.complete(PROMPTS[row], MIXED[row])[0]
        assert reasons[last] == one.finish_reason
        assert not any(stop in one.text for stop in MIXED[row].stop_strings)


def test_the_seed_decides(generate):
    draws = [generate("abc", seed=seed, temperature=1.5, top_k=0, max_new_tokens=5) for seed in (1, 1, 2, 3)]
    assert draws[0] == draws[1] and len(set(draws)) == 3
    several = generate(["abc", "f"], seed=1, temperature=1.5, top_k=0, max_new_tokens=5, num_return_sequences=3)
    assert [len(row) for row in several] == [3, 3] and several[0][0] == draws[0] and len(set(several[0])) == 3
    assert generate("abc", seed=1, temperature=1.5, top_k=0, max_new_tokens=5, num_return_sequences=3) == several[0]


def test_many_rows_go_in_several_batches(answer):
    prompts = ["".join(letters) for letters in itertools.product("abcdef", repeat=3)][:130]
    said = answer(prompts)
    assert said[::16] == [answer(prompt) for prompt in prompts[::16]] and len(set(said)) > 30
    assert answer([]) == [] and answer.complete([]) == [] and answer.embed([]).shape == (0, 4)


def test_a_cancelled_row_says_nothing_more_and_the_others_go_on(generate):
    configs = [GenerationConfig(min_new_tokens=8, max_new_tokens=9)] * 3
    stream, seen = generate.stream_batch(["abc", "f", "ba"], configs), []
    for pieces in stream:
        seen.append(pieces)
        if len(seen) == 2:
            stream.cancel(1)
    assert [pieces[1].finish_reason for pieces in seen][:4] == [None, None, "cancelled", None]
    assert not any(pieces[1].text for pieces in seen[3:]) and len(stream.texts[1].ids) == 2
    whole = generate(["abc", "ba"], configs[0])
    assert ["".join(pieces[row].text for pieces in seen) for row in (0, 2)] == whole


def test_when_all_are_cancelled_it_is_over(generate):
    stream = generate.stream_batch(["abc"], [GenerationConfig(min_new_tokens=8, max_new_tokens=9)])
    next(stream)
    stream.cancel(0)
    assert [pieces[0].finish_reason for pieces in stream] == ["cancelled"]


# === Rules ===


def test_rules_hold_across_windows(generate):
    """Each against the same choice made slowly."""

    def never_twice(logs, said):
        pairs = {tuple(said[i : i + 2]) for i in range(len(said) - 1)}
        return max(range(len(logs)), key=lambda i: -np.inf if said and (said[-1], i) in pairs else logs[i])

    def long(logs, said):
        return max(range(len(logs)), key=lambda i: -np.inf if i == END_ID and len(said) < 9 else logs[i])

    for given, choose in (
        ({"no_repeat_ngram_size": 2}, never_twice),
        ({"min_new_tokens": 9}, long),
        (
            {"suppress_tokens": [3, 5]},
            lambda logs, said: int(np.where([i in (3, 5) for i in range(9)], -np.inf, logs).argmax()),
        ),
        (
            {"bad_words_ids": [[4], [6, 7]]},
            lambda logs, said: max(
                range(9), key=lambda i: -np.inf if i == 4 or (i == 7 and said[-1:] == [6]) else logs[i]
            ),
        ),
    ):
        said = [one.ids for one in generate.complete(PROMPTS, do_sample=False, **given, **LONG)]
        assert said == [say_slowly(generate, prompt, 13, choose) for prompt in PROMPTS], given


def test_a_prefix_is_said_first_and_counts(generate):
    said = generate.complete(["abc", "f"], do_sample=False, prefix="ddaadda", max_new_tokens=9)
    assert all(one.text.startswith("ddaadda") and len(one.ids) <= 9 for one in said)
    wanted = iter(generate.tokenizer.encode("ddaadda"))
    assert said[0].ids == say_slowly(generate, "abc", 9, lambda logs, said: next(wanted, int(logs.argmax())))


def test_a_stop_string_is_cut_off_wherever_tokens_end(generate):
    text = generate("abc", do_sample=False, **LONG)
    stop = text[5:8]  # across the border of a window, three tokens
    one = generate.complete("abc", do_sample=False, stop_strings=[stop], **LONG)[0]
    assert one.text == text[: text.index(stop)] and one.finish_reason == "stop"
    assert len(one.ids) == text.index(stop) + 3
    pieces = list(generate.stream("abc", do_sample=False, stop_strings=[stop, "zzz"], **LONG))
    assert "".join(pieces) == one.text


# === Requests, settings ===


def test_a_request_has_one_answer(answer):
    said = answer.complete(["abc", "f"], max_new_tokens=50, min_new_tokens=50)
    assert [len(one.ids) for one in said] == [5, 5] and said[0].finish_reason == "length"
    with pytest.raises(ValueError, match=r"texts are expected to have at most 5 tokens\. Received: 6"):
        answer.score("abc", "abcabc")
    assert len(answer.score("abc", "abca", with_end=True)) == 5
    assert answer.config == GenerationConfig() and build_scripted().config == PAGE_CONFIG


def test_beams_of_one_window_return_several_and_of_many_go_on(generate):
    rows = generate(["abc", "f"], num_beams=3, num_return_sequences=3, max_new_tokens=4)
    assert [len(set(row)) for row in rows] == [3, 3]
    assert [row[0] for row in rows] == generate(["abc", "f"], num_beams=3, max_new_tokens=4)
    long = generate.complete("abc", num_beams=3, min_new_tokens=12, max_new_tokens=12)[0]
    assert len(long.ids) == 12
    with pytest.raises(ValueError, match=r"max_new_tokens is expected to be at most 5, one window .* Received: 6"):
        generate("abc", num_beams=3, num_return_sequences=3, max_new_tokens=6)


def test_settings_bring_what_they_imply():
    page = PAGE_CONFIG
    assert page.draws and not page.with_settings(num_beams=4).draws and page.with_settings(num_beams=4).num_beams == 4
    assert not page.with_settings(temperature=0).draws and not page.with_settings(do_sample=False).draws
    assert GenerationConfig().with_settings(top_p=0.9).draws
    assert not GenerationConfig().with_settings(top_p=0.9, do_sample=False).draws
    beams = GenerationConfig(num_beams=4)
    assert beams.with_settings(temperature=0.5).num_beams == 1 and beams.with_settings(seed=1).num_beams == 4
    contrast = page.with_settings(penalty_alpha=0.6)
    assert contrast.contrasts and not contrast.draws and contrast.top_k == 4
    assert GenerationConfig(stop_strings="\n").stop_strings == ("\n",)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"max_new_tokens": 0}, r"max_new_tokens is expected to be a whole number of at least 1\. Received: 0"),
        ({"max_new_tokens": 2.0}, r"max_new_tokens is expected to be a whole number .* Received: 2\.0"),
        ({"seed": -1}, r"seed is expected to be a whole number in \[0, 9223372036854775807\]\. Received: -1"),
        ({"top_p": 2}, r"top_p is expected to be a number in \[0, 1\]\. Received: 2"),
        ({"temperature": float("nan")}, r"temperature is expected to be a number of at least 0\. Received: nan"),
        ({"repetition_penalty": 0}, r"repetition_penalty is expected to be above 0\. Received: 0"),
        ({"min_new_tokens": 65}, r"min_new_tokens is expected to be at most max_new_tokens, 64\. Received: 65"),
        ({"stop_strings": ("a", "")}, r"stop_strings is expected to hold texts, none of them empty"),
        ({"bad_words_ids": [[]]}, r"bad_words_ids is expected to hold sequences of ids"),
        ({"do_sample": True, "num_beams": 2}, r"num_beams is expected to be left out with do_sample\. Received: 2"),
        ({"num_return_sequences": 2}, r"num_return_sequences is expected to be at most num_beams, 1, .* Received: 2"),
        (
            {"penalty_alpha": 0.5},
            r"penalty_alpha expects num_beams=1 and a top_k of at least 2\. Received: num_beams=1, top_k=0",
        ),
        ({"beam_manner": "deep", "num_beams": 2}, r"beam_manner is expected to be one of .* Received: 'deep'"),
    ],
)
def test_wrong_settings_are_named(given, text):
    with pytest.raises(ValueError, match=text):
        GenerationConfig(**given)


def test_what_cannot_be_asked_for_is_named(generate):
    with pytest.raises(
        ValueError, match=r"settings are expected to be among \['max_new_tokens', .* Received: 'strategy'"
    ):
        generate("a", strategy=None)
    with pytest.raises(ValueError, match=r"num_beams is expected to be 1 in a stream\. Received: 2"):
        generate.stream("a", num_beams=2)
    configs = [GenerationConfig(), GenerationConfig(suppress_tokens=[3])]
    with pytest.raises(ValueError, match=r"suppress_tokens is expected to be the same for all rows of a batch"):
        generate.stream_batch(["a", "b"], configs)
    with pytest.raises(ValueError, match=r"1 to 64, with a config each\. Received: 2 prompts and 1 configs"):
        generate.stream_batch(["a", "b"], configs[:1])
    with pytest.raises(ValueError, match=r"1 to 64, with a config each\. Received: 0 prompts and 0 configs"):
        generate.stream_batch([], [])
    contrasts = [GenerationConfig(penalty_alpha=0.5, top_k=top_k) for top_k in (2, 3)]
    with pytest.raises(
        ValueError, match=r"top_k is expected to be the same .* with penalty_alpha\. Received: \[2, 3\]"
    ):
        generate.stream_batch(["a", "b"], contrasts)
    with pytest.raises(ValueError, match=r"texts are expected to be 2, one a prompt\. Received: 1"):
        generate.score(["a", "b"], ["a"])
    with pytest.raises(ValueError, match=r"frame is expected to be one of \['blank', .*\]\. Received: 'letter'"):
        Generator(ScriptedModel(0), generate.tokenizer, "letter")


def test_one_graph_serves_what_differs_in_numbers_alone(generate):
    prompts, before = ["abc", "f"], None
    for seed, temperature, tokens in ((1, 0.5, 13), (2, 1.5, 12), (3, 0.7, 11)):
        configs = [dataclasses.replace(PAGE_CONFIG, seed=seed, temperature=temperature, max_new_tokens=tokens)] * 2
        list(generate.stream_batch(prompts, configs))
        graphs = len(generate._compiled)
        assert graphs == (before or graphs)
        before = graphs
