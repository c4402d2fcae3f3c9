"""Guesses of a small model change nothing of what is said: neither the likeliest text, nor how likely any text is."""

import numpy as np
import pytest
import tensorflow as tf
from scripted import ScriptedModel, build_scripted

from tf_llm.contracts import END_ID, PAD_ID, UNKNOWN_ID
from tf_llm.decoding.constraints import Automaton
from tf_llm.decoding.draws import split_seeds
from tf_llm.decoding.frames import frame_request
from tf_llm.decoding.settings import GenerationConfig
from tf_llm.decoding.speculative import advance_by_guesses
from tf_llm.decoding.strategies import Sample, begin

PROMPTS = ["abc", "", "f", "abcdefabc", "ba"]


@pytest.fixture(scope="module")
def generate():
    """With a draft that agrees with the model about half of the time."""
    return build_scripted(3, draft=ScriptedModel(8, like=ScriptedModel(3)))


def share_texts(model, source, length, cut):
    """The exact probability of each text of up to so many tokens: {ids: probability}."""
    shares, live = {}, {(): 1.0}
    for _ in range(length):
        further = {}
        for text, share in live.items():
            logits = model.logits[model.key(source, text)].copy()
            logits[[PAD_ID, UNKNOWN_ID]] = -np.inf
            for token_id, part in enumerate(cut(logits)):
                (shares if token_id == END_ID else further)[(*text, token_id)] = share * part
        live = further
    return {text: share for text, share in (shares | live).items() if share > 0}


@pytest.mark.parametrize(("draft", "sample"), [("near", Sample()), ("far", Sample(temperature=0.9, top_k=3))])
def test_texts_are_as_likely_as_without_guesses(draft, sample):
    """χ² of 20,000 texts of up to three tokens from a vocabulary of five, against their exact probabilities."""
    rows, shape = 20_000, {"vocabulary_size": 5, "source_length": 2, "target_length": 3, "scale": 0.8}
    model = ScriptedModel(1, **shape)
    small = ScriptedModel(2, like=model if draft == "near" else None, **shape)
    source = frame_request([3], 2, 5)

    def bind(each, num_tokens):
        """A step function of a model that has read the source in every row."""
        read = each.build_start()(tf.tile([source], [rows, 1]), training=False)["row"]
        step = each.build_step(num_tokens)
        return lambda ids, at, cache: step({"token_ids": ids, "position": at, "row": read, **cache})

    @tf.function
    def run():
        talk = begin((model.empty_cache(rows), small.empty_cache(rows)), rows, 3)
        sizes = {"num_guesses": 2, "window": 3, "vocabulary_size": 5}
        return advance_by_guesses(
            bind(model, 2), bind(small, 1), talk, sample, 3, tf.constant(split_seeds(range(rows))), **sizes
        ).said

    counts = {}
    for row in run().numpy().tolist():
        text = tuple(token_id for token_id in row if token_id != PAD_ID)
        counts[text] = counts.get(text, 0) + 1

    def cut(logits):
        return tf.nn.softmax(sample.cut(tf.constant([logits])))[0].numpy()

    shares = share_texts(model, source, 3, cut)
    assert set(counts) <= set(shares) and sum(shares.values()) == pytest.approx(1, abs=1e-5)
    expected = np.array([rows * share for share in shares.values()])
    found = np.array([counts.get(text, 0) for text in shares])
    common = expected >= 5
    cells = [*zip(found[common], expected[common], strict=True), (found[~common].sum(), expected[~common].sum())]
    chi_squared = sum((f - e) ** 2 / e for f, e in cells if e > 0)
    freedom = len(cells) - 1
    assert freedom > 5 and chi_squared < freedom + 4 * np.sqrt(2 * freedom), (chi_squared, freedom)


def test_the_likeliest_text_is_the_same(generate):
    plain = build_scripted(3)
    asked = {"do_sample": False, "max_new_tokens": 13, "repetition_penalty": 1.4, "no_repeat_ngram_size": 2}
    assert generate(PROMPTS, **asked, min_new_tokens=6) == plain(PROMPTS, **asked, min_new_tokens=6)


def test_a_row_says_the_same_alone_in_company_and_in_pieces(generate):
    config = GenerationConfig(do_sample=True, max_new_tokens=13, seed=4)
    together = generate(PROMPTS, config)
    assert together == [generate(prompt, config) for prompt in PROMPTS]
    assert ["".join(generate.stream(prompt, config)) for prompt in PROMPTS] == together
    assert len(set(together)) > 3
    three = generate(PROMPTS[0], config, num_assistant_tokens=3)
    assert three == together[0]  # how many are guessed at a time does not matter


def test_good_guesses_save_steps(generate):
    """A draft that is the model itself is always right: so many tokens a step."""
    twin = build_scripted(3, draft=ScriptedModel(3), end=-99.0)
    twin.draft.logits = twin.model.logits
    stream = twin.stream_batch(
        ["abc", "f"], [GenerationConfig(do_sample=True, max_new_tokens=10, num_assistant_tokens=5)] * 2
    )
    assert [len(pieces[0].text) for pieces in stream] == [5, 5]


def test_searches_and_constraints_go_without_it(generate):
    constraint = Automaton.from_sequences([[3, 4]])
    for settings in ({"penalty_alpha": 0.5}, {"num_assistant_tokens": 0}, {"constraint": constraint}):
        assert generate.count_guesses(GenerationConfig().with_settings(**settings)) == 0
    assert generate.count_guesses(GenerationConfig(num_assistant_tokens=9)) == 5  # a window
    assert generate("abc", constraint=constraint) == "ab"


def test_a_draft_that_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"draft is expected to have the target_length 5 of the model\. Received: 4"):
        build_scripted(0, draft=ScriptedModel(0, target_length=4))
    forgetful = ScriptedModel(0)
    forgetful.empty_cache = lambda rows: {"state_0": tf.zeros([rows, 2])}
    with pytest.raises(ValueError, match=r"draft is expected to remember keys and values alone .* \['state'\]"):
        build_scripted(0, draft=forgetful)
