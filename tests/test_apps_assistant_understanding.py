"""From a request to a call: ids, grammar, batches, and a small model that learns a few requests by heart."""

import dataclasses
import random

import numpy as np
import pytest

from tf_llm.apps.assistant.call_grammar import build_call_automaton
from tf_llm.apps.assistant.call_tokens import CallTokenizer, find_words, shape_word
from tf_llm.apps.assistant.calls import OUT_OF_SCOPE, Call, Utterance, parse_call
from tf_llm.apps.assistant.lessons import Lessons
from tf_llm.apps.assistant.teaching import TRAINING, TeachingConfig, find_threshold, plan_model, train_understanding
from tf_llm.apps.assistant.understanding import Understanding, load_understanding
from tf_llm.contracts import DECODER_IDS, END_ID, SOURCE_IDS, UNKNOWN_ID, UserError
from tf_llm.model.encoder_decoder import build_model

SAID = [
    Utterance("play", (("play ", None), ("abba", "artist"), (" from ", None), ("1976", "year"))),
    Utterance("play", (("put on ", None), ("New Order", "artist"), (", please", None))),
    Utterance("stop", (("stop it", None),)),
    Utterance("remind", (("remind me to ", None), ("feed the cat", "text"), (" at ", None), ("7:30", "time"))),
    Utterance(OUT_OF_SCOPE, (("who are you", None),)),
]
# Whatever stands in a request, a call comes of it or none does.
ODD = [
    "play",
    "?!",
    "7:30 a.m. o'clock",
    "播放周杰伦的歌",
    "🎵🎵 play",
    "a" * 5_000,
    "play\nabba\x00now",
    "ก็เล่นเพลง",
    "x " * 63,
]
SMALL = TeachingConfig(
    rows=2,
    requests=8,
    d_model=32,
    dropout=0.0,
    unknown=0.0,
    hide=0.0,
    insert=0.0,
    training=dataclasses.replace(TRAINING, learning_rate=1e-2, warmup_steps=10, steps=70, ema_decay=0.9),
)


@pytest.fixture(scope="module")
def tokenizer():
    return CallTokenizer.from_utterances(SAID)


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """A folder in which a small model has learnt SAID by heart, and the understanding as it was there and then."""
    folder = tmp_path_factory.mktemp("assistant") / "run"
    return folder, train_understanding(SAID, SAID, folder, SMALL)


@pytest.fixture(scope="module")
def untaught(tokenizer):
    return Understanding(build_model(plan_model(tokenizer, SMALL)), tokenizer)


# === Ids ===


def test_words_are_found_where_they_stand():
    text = "Don't wake me at 7:30, 周一!"
    assert [text[begin:end] for begin, end in find_words(text)] == [
        "Don't",
        "wake",
        "me",
        "at",
        "7:30",
        ",",
        "周",
        "一",
        "!",
    ]
    assert shape_word("7:30") == shape_word("8:15") == "0:00"


def test_a_call_points_at_the_words_of_the_text(tokenizer):
    said = "remind me to feed the cat at 7:30"
    assert " ".join(tokenizer.words[id - 3] for id in tokenizer.encode(said)) == "remind me to feed the cat at 0:00"
    assert tokenizer.decode(tokenizer.encode_call(SAID[3])) == "remind O O O B-text I-text I-text O B-time"


@pytest.mark.parametrize("utterance", SAID, ids=lambda utterance: utterance.name)
def test_calls_come_back_from_their_ids(tokenizer, utterance):
    assert tokenizer.decode_call([*tokenizer.encode_call(utterance), END_ID], utterance.text) == utterance.call


def test_words_that_were_never_seen_are_copied_as_they_are_written(tokenizer):
    seen = Utterance("play", (("play ", None), ("abba", "artist")))
    assert tokenizer.decode_call(tokenizer.encode_call(seen), "play Zyx-Qrr’s") == Call(
        "play", (("artist", "Zyx-Qrr’s"),)
    )
    assert tokenizer.encode("play Zyx-Qrr’s")[1] == UNKNOWN_ID


def test_a_slot_that_is_part_of_a_word_has_no_ids(tokenizer):
    assert tokenizer.encode_call(Utterance("play", (("re", None), ("play", "artist")))) is None
    beyond = Utterance("play", (("play " * 40, None), ("abba", "artist")))
    assert tokenizer.encode_call(beyond) is None


def test_a_tokenizer_is_saved_and_loaded(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "t.json")
    assert vars(CallTokenizer.load(tmp_path / "t.json")) == vars(tokenizer)
    (tmp_path / "t.json").write_text('{"words": []}')
    with pytest.raises(UserError, match=r"expected the words and tools of an assistant in .*Train it again"):
        CallTokenizer.load(tmp_path / "t.json")


# === Grammar ===


def test_whatever_the_grammar_admits_is_a_call(tokenizer):
    text, draws = "one two three four five", random.Random(0)
    automaton = build_call_automaton(tokenizer)
    calls = set()
    for _ in range(300):
        state, ids = 0, []
        while len(ids) < 6 and automaton.edges[state]:
            token, state = draws.choice(list(automaton.edges[state].items()))
            ids.append(token)
        call = tokenizer.decode_call(ids, text)
        calls.add(call)
        if call is None:
            continue
        assert parse_call(str(call)) == call
        assert all(slot in tokenizer.tools[call.name] for slot, _ in call.arguments)
        begins = [text.find(value) for _, value in call.arguments]
        assert begins == sorted(set(begins)) and -1 not in begins  # verbatim, one behind the other
    assert len(calls) > 20


# === Batches ===


def make_lessons(tokenizer, **settings):
    config = dataclasses.replace(SMALL, **settings)
    return Lessons(SAID, tokenizer, plan_model(tokenizer, config), config)


def test_a_batch_is_a_function_of_its_number(tokenizer):
    lessons = make_lessons(tokenizer, swap=0.5, unknown=0.5)
    third = [lessons.make_blocks(number) for number in (0, 1, 2)][2]
    assert np.array_equal(third, make_lessons(tokenizer, swap=0.5, unknown=0.5).make_blocks(2))
    first, other = (next(iter(lessons.make_batches(2)))[0] for _ in range(2))
    assert (first[SOURCE_IDS].shape, first[DECODER_IDS].shape) == ((2, 40), (2, 41))
    assert np.array_equal(first[SOURCE_IDS], other[SOURCE_IDS])
    told = third[:, : np.argmax(third[0] == END_ID)]  # the first source of the first row
    assert np.array_equal(first[SOURCE_IDS][0, : told.shape[1]], told[0])


def test_every_request_comes_once_an_epoch(tokenizer):
    lessons = make_lessons(tokenizer, requests=5)
    assert [sorted(lessons._choose(number)) for number in (0, 1, 7)] == [[0, 1, 2, 3, 4]] * 3


def test_swapped_words_are_those_of_the_same_slot(tokenizer):
    lessons = make_lessons(tokenizer, swap=1.0)
    draws = np.random.default_rng(0)
    made = {tuple(lessons.make_pair(SAID[1], draws)[0]) for _ in range(20)}
    assert made == {tuple(tokenizer.encode(f"put on {artist}, please")) for artist in ("abba", "new order")}


def test_hidden_words_leave_the_call_as_it_is(tokenizer):
    lessons = make_lessons(tokenizer, swap=0.0, unknown=1e9)
    ids, call = lessons.make_pair(SAID[3], np.random.default_rng(0))
    assert set(ids) == {UNKNOWN_ID} and call == tokenizer.encode_call(SAID[3])


def test_every_word_may_be_hidden(tokenizer):
    lessons, draws = make_lessons(tokenizer, swap=0.0, hide=0.5), np.random.default_rng(0)
    hidden = [id == UNKNOWN_ID for _ in range(200) for id in lessons.make_pair(SAID[3], draws)[0]]
    assert 0.4 < np.mean(hidden) < 0.6


def test_unknown_words_come_in_between_and_belong_to_no_slot(tokenizer):
    lessons, draws = make_lessons(tokenizer, swap=0.0, insert=0.3), np.random.default_rng(0)
    plain, call = tokenizer.encode(SAID[3].text), tokenizer.encode_call(SAID[3])
    outside, lengths = tokenizer.tag_ids["O",], set()
    for _ in range(50):
        ids, (name, *tags) = lessons.make_pair(SAID[3], draws)
        pairs = list(zip(ids, tags, strict=True))
        assert [pair for pair in pairs if pair[0] != UNKNOWN_ID] == list(zip(plain, call[1:], strict=True))
        assert all(tag == outside for id, tag in pairs if id == UNKNOWN_ID)
        words = " ".join(tokenizer.decode([tag]) for tag in tags)
        assert "B-text I-text I-text" in words and name == call[0]  # the slot holds together
        lengths.add(len(ids))
    assert len(lengths) > 3


def test_requests_without_ids_are_counted_and_left_out(tokenizer):
    config = SMALL
    broken = Utterance("play", (("re", None), ("play", "artist")))
    lessons = Lessons([*SAID, broken], tokenizer, plan_model(tokenizer, config), config)
    assert lessons.rejections == {"a slot is not made of whole words": 1} and len(lessons.utterances) == len(SAID)


# === A model ===


@pytest.mark.parametrize("text", ODD)
def test_a_model_that_knows_nothing_says_calls_nonetheless(untaught, text):
    understood = untaught(text)
    assert 0 <= understood.confidence <= 1
    if understood.call is not None:
        assert parse_call(str(understood.call)) == understood.call
        assert all(value in text for _, value in understood.call.arguments)


@pytest.mark.parametrize("text", ["", "  \n", "word " * 40])
def test_nothing_and_too_much_are_out_of_scope(untaught, text):
    understood = untaught(text)
    assert understood.call is None and understood.confidence == 0


@pytest.mark.thorough
def test_requests_are_learnt(learnt):
    _, understand = learnt
    assert [one.call for one in understand.understand_all([said.text for said in SAID])] == [said.call for said in SAID]
    assert understand("Play ABBA from 2026").call == Call("play", (("artist", "ABBA"), ("year", "2026")))


@pytest.mark.thorough
def test_alone_and_in_company_the_same_is_understood(learnt):
    _, understand = learnt
    texts = [said.text for said in SAID]
    together = understand.understand_all(texts)
    for one, other in zip(map(understand, texts), together, strict=True):
        assert one.call == other.call and one.confidence == pytest.approx(other.confidence, abs=1e-5)


@pytest.mark.thorough
def test_a_saved_understanding_is_found_again(learnt):
    folder, understand = learnt
    again = load_understanding(folder)
    for said in SAID:
        assert again(said.text).call == understand(said.text).call
    assert again.threshold == understand.threshold


@pytest.mark.thorough
def test_a_finished_run_has_nothing_left_to_learn(learnt):
    folder, understand = learnt
    before = sorted(path.name for path in (folder / "checkpoints").iterdir())
    again = train_understanding(SAID, SAID, folder, SMALL)
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == before
    assert again(SAID[0].text) == understand(SAID[0].text)


@pytest.mark.thorough
def test_another_vocabulary_in_the_same_folder_is_refused(learnt):
    folder, _ = learnt
    with pytest.raises(UserError, match=r"expected the words and tools with which the run in .* began"):
        train_understanding(SAID[:2], SAID[:2], folder, SMALL)


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(UserError, match=r"expected what an assistant has learnt in .*Train it first"):
        load_understanding(tmp_path)


@pytest.mark.thorough
def test_below_the_threshold_a_request_is_refused(learnt):
    _, understand = learnt
    strict = Understanding(understand.model, understand.tokenizer, threshold=1.1)
    assert strict(SAID[0].text).call is None and strict(SAID[0].text).confidence > 0.5
    assert find_threshold(understand, SAID[:4], 0.95) == 0.0  # nothing to refuse
    assert 0 < find_threshold(Understanding(understand.model, understand.tokenizer), SAID, 1.0) <= 1
