"""An encoder that learns from the corpus which it is to search, and how much its ranking may count there.

    encoder, history = train_encoder(entries)
    weight, scores = choose_weight(entries, encoder)
    index = SearchIndex.open("runs/search", embed=encoder, dense_weight=weight)

Each title and the passages under it belong together (training/contrastive.py). One text in ten is held out: by these,
training knows when to stop, and `choose_weight` how much the dense ranking may count beside the lexical one. No query
is needed, and none is used. Where words alone find texts by their titles best, the weight is 0, and the search is one
by words.
"""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from tf_llm import recipes
from tf_llm.apps.search.encoder import Encoder
from tf_llm.apps.search.entries import Entry
from tf_llm.apps.search.fusion import fuse
from tf_llm.apps.search.index import SearchIndex
from tf_llm.apps.search.topics import start_from_topics
from tf_llm.apps.search.writing import join_text
from tf_llm.config import RunConfig
from tf_llm.contracts import SPECIAL_TOKENS, UserError
from tf_llm.evaluation.retrieval import compute_reciprocal_rank
from tf_llm.model.config import ModelConfig
from tf_llm.model.encoder_decoder import build_model
from tf_llm.text.builders import make_builder
from tf_llm.text.words import WordsConfig
from tf_llm.training.contrastive import ContrastiveConfig, Pairs, tune_context

PASSAGES = 8  # of a text that are pairs with its title
HELD_OUT = 10  # one text in so many
MAX_ASKED = 400  # held-out titles by which a weight is chosen
WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)  # of the dense ranking
LEAST_TEXTS = 100


def plan_encoder(vocabulary_size: int = 8_000) -> RunConfig:
    """The settings of a small encoder, to be trained within minutes: words without stop words, one block, no decoder to
    speak of."""
    run = recipes.article()
    model = ModelConfig(
        vocabulary_size=vocabulary_size + 3,
        source_length=64,
        target_length=8,
        num_layers=1,
        d_model=128,
        d_ff=256,
        context="sequence",
        positions="rotary",
        norm="rms",
        input_norm="none",
        activation="gelu",
        embedding_dropout=0.0,  # it would drop the constant that topics.py begins with, too
        residual_dropout=0.1,
        output_l2=0.0,
    )
    words = WordsConfig(stop_words="own", vocabulary_size=vocabulary_size)
    shards = dataclasses.replace(run.shards, block_length=72, overlap=64)  # the lengths that the model has
    return dataclasses.replace(run, recipe="search", words=words, shards=shards, model=model)


def train_encoder(
    entries: Iterable[Entry], run: RunConfig | None = None, config: ContrastiveConfig | None = None
) -> tuple[Encoder, list[dict]]:
    """A new encoder that has learned from entries, and how its training went (`tune_context`).

    Args:
        entries: to learn from; those with both title and text teach.
        run: settings of the words and of the model; None is `plan_encoder()`.
        config: of the tuning.

    Raises:
        UserError: there are too few.
    """
    entries = list(entries)
    encoder = build_encoder(entries, run)
    return encoder, tune_encoder(encoder, entries, config)


def build_encoder(entries: Iterable[Entry], run: RunConfig | None = None) -> Encoder:
    """An encoder that knows of entries which words they share, and has not been tuned yet. See `train_encoder`."""
    entries, run = list(entries), run or plan_encoder()
    builder, counts = make_builder(run.tokens, run.words), Counter()
    texts = [join_text(entry) for entry in entries]
    for text in texts:
        counts.update(builder.cut(text, Counter(), Counter()) or ())
    tokenizer = builder.build(counts, texts)
    run = dataclasses.replace(  # the model needs no room for words that the corpus does not have
        run,
        words=dataclasses.replace(run.words, vocabulary_size=tokenizer.vocabulary_size - len(SPECIAL_TOKENS)),
        model=dataclasses.replace(run.model, vocabulary_size=tokenizer.vocabulary_size),
    )
    encoder = Encoder(build_model(run.model), tokenizer, run)
    # Texts that are held out are known, as all that are to be searched; what nobody knows are their titles, which stand
    # for questions.
    learned = [take_title_off(entry) if is_held_out(entry.address) else join_text(entry) for entry in entries]
    start_from_topics(encoder.model, map(tokenizer.encode, learned))
    return encoder


def tune_encoder(encoder: Encoder, entries: Iterable[Entry], config: ContrastiveConfig | None = None) -> list[dict]:
    """Tunes an encoder, also one of a model that was trained for something else, in place. See `train_encoder`."""
    config, apart = config or ContrastiveConfig(), ([], [])
    for entry in entries:
        apart[is_held_out(entry.address)].append(entry)
    kept, held_out = (make_pairs(encoder, each) for each in apart)
    least = max(LEAST_TEXTS, config.batch_size)
    if len(kept) < least or len(held_out) < 2:
        raise UserError(
            f"expected at least {least} titles with texts to learn from, and some to hold out. Received: {len(kept)} "
            f"and {len(held_out)}. Search without an encoder, or bring one that was trained elsewhere"
        )
    return tune_context(encoder.model, kept, held_out, config)


def is_held_out(address: str) -> bool:
    """Whether the text at an address is kept from training: one in ten, always the same ones."""
    return hashlib.sha256(address.encode("utf-8", "replace")).digest()[0] % HELD_OUT == 0


def make_pairs(encoder: Encoder, entries: Sequence[Entry]) -> Pairs:
    """Titles and the passages under them."""
    left, right, owners = [], [], []
    for owner, entry in enumerate(entries):
        title = encoder.cut(entry.title, 1)
        passages = encoder.cut(take_title_off(entry), PASSAGES)
        if title and passages:
            left += title * len(passages)
            right += passages
            owners += [owner] * len(passages)
    return Pairs(encoder.pad(left), encoder.pad(right), np.array(owners, "int32"))


def take_title_off(entry: Entry) -> str:
    """The text without the title at its beginning, which would give away what belongs to it.

    >>> take_title_off(Entry("a", "Green  tea", "Green tea\\nis steamed."))
    'is steamed.'
    """
    title, text = (" ".join(part.split()) for part in (entry.title, entry.text))
    return text.removeprefix(title).strip() if title else text


def choose_weight(
    entries: Iterable[Entry], encoder: Encoder, weights: Sequence[float] = WEIGHTS
) -> tuple[float, dict[float, float]]:
    """The weight of the dense ranking with which held-out texts are found best by their titles, and the MRR of each.

    Asked for are the texts without their titles, among all others without theirs. Of equals, the smaller weight is
    chosen: words need no reason.
    """
    entries = list({entry.address: entry for entry in entries if entry.text and entry.title}.values())
    held_out = [entry for entry in entries if is_held_out(entry.address)][:MAX_ASKED]
    if not held_out:
        return 0.0, {}
    bare = [Entry(entry.address, "", take_title_off(entry) or entry.text, entry.language) for entry in entries]
    with tempfile.TemporaryDirectory() as folder:
        index = SearchIndex.open(folder, encoder)
        index.update(bare)
        ranked = [(entry.address, *index.rank_sides(entry.title)) for entry in held_out]
    scores = {weight: float(np.mean([find_rank(*each, weight) for each in ranked])) for weight in sorted(weights)}
    return max(scores, key=scores.get), scores


def find_rank(address: str, words: Sequence[str], near: Sequence[str], weight: float) -> float:
    """The reciprocal rank of an address where the dense ranking has this weight.

    >>> find_rank("b", ["a", "b"], ["b"], 0.0), find_rank("b", ["a", "b"], ["b"], 1.0), find_rank("c", [], ["c"], 0.0)
    (0.5, 1.0, 0.0)
    """
    ranked = fuse([words, near], [1.0, weight]) if weight > 0 else fuse([words])
    return compute_reciprocal_rank([name for name, _ in ranked], {address: 1})
