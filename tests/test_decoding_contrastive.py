"""Contrastive search against the same written for one row, with lists."""

import numpy as np
import pytest
from scripted import build_scripted

from tf_llm.contracts import END_ID, PAD_ID, UNKNOWN_ID
from tf_llm.decoding.frames import frame_page

PROMPTS = ["abc", "", "f", "abcdefabc", "ba"]


def search_slowly(model, ids, count, alpha, top_k):
    said = []
    while len(said) < count:
        source, window = frame_page(ids + said, model.config.source_length, None), []
        vector = lambda text: model.hidden[model.key(source, text)].astype("float64")  # noqa: B023, E731
        while len(window) < model.config.target_length and len(said) < count:
            logits = model.logits[model.key(source, window)].astype("float64")
            logits[[PAD_ID, UNKNOWN_ID]] = -np.inf
            shares = np.exp(logits - np.logaddexp.reduce(logits))
            best = np.argsort(-shares)[:top_k]
            if len(window) + 1 < model.config.target_length:
                before = [vector(window[:i]) for i in range(len(window) + 1)]
                scores = []
                for token_id in best:
                    own = vector([*window, token_id])
                    cosines = [own @ other / np.linalg.norm(own) / np.linalg.norm(other) for other in before]
                    scores.append((1 - alpha) * shares[token_id] - alpha * max(cosines))
                best = best[np.argsort(scores)[::-1]]
            window.append(int(best[0]))
            said = [*said, window[-1]]
            if said[-1] == END_ID:
                return said
    return said


@pytest.mark.parametrize("alpha", [0.3, 0.8])
def test_it_equals_the_search_with_lists(alpha):
    generate = build_scripted(2)
    said = generate.complete(PROMPTS, penalty_alpha=alpha, top_k=3, max_new_tokens=13)
    encode = generate.tokenizer.encode
    expected = [search_slowly(generate.model, encode(prompt), 13, alpha, 3) for prompt in PROMPTS]
    assert [one.ids for one in said] == expected
    greedy = generate(PROMPTS, do_sample=False, max_new_tokens=13)
    assert greedy != [one.text for one in said]
    assert "".join(generate.stream("abc", penalty_alpha=alpha, top_k=3, max_new_tokens=13)) == said[0].text
