"""Contrastive search against the same written for one row, with lists."""

import numpy as np
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


def test_it_equals_the_search_with_lists():
    """In several windows, whole and in pieces; the penalty changes most of the texts."""
    generate = build_scripted(2)
    config = generate.config.with_settings(penalty_alpha=0.6, top_k=3, max_new_tokens=13)
    said, encode = generate.complete(PROMPTS, config), generate.tokenizer.encode
    slowly = lambda alpha: [search_slowly(generate.model, encode(prompt), 13, alpha, 3) for prompt in PROMPTS]  # noqa: E731
    assert [one.ids for one in said] == slowly(0.6)
    assert sum(one != other for one, other in zip(slowly(0.6), slowly(0.0), strict=True)) > 2
    pieces = list(generate.stream_batch(PROMPTS, [config] * 5))
    assert ["".join(step[row].text for step in pieces) for row in range(5)] == [one.text for one in said]
