"""Teaching a model to answer: from nothing, or from weights that know something already.

The trainer is that of the main job (run.py); what is special here is a recipe, and that a bot's folder holds the facts
that it was taught beside the run:

    facts.jsonl   what was taught, and what is only looked up;  data/   the pairs as token ids
    config.json, tokenizer.json, checkpoints/, summary.json, …          the run, see run.py
"""

import dataclasses
import json
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import keras

from tf_llm import recipes
from tf_llm.apps.chatbot.dialogues import make_pairs
from tf_llm.apps.chatbot.facts import PACKAGES, Fact, collect_facts
from tf_llm.apps.chatbot.phrasings import make_lessons
from tf_llm.config import RunConfig
from tf_llm.contracts import SPECIAL_TOKENS, UserError
from tf_llm.crawl.self_crawl import STANDARD_LIBRARY
from tf_llm.data.objectives import ObjectiveConfig
from tf_llm.data.pairs import write_pairs
from tf_llm.data.shards import ShardConfig, load_shards
from tf_llm.files import write_atomically
from tf_llm.load import CHECKPOINTS, CONFIG, Generator, from_pretrained, load_model
from tf_llm.model.encoder_decoder import build_model
from tf_llm.run import train
from tf_llm.text.piece_training import build_sentence_piece_tokenizer
from tf_llm.training.distribution import choose_precision
from tf_llm.training.losses import build_loss
from tf_llm.training.optimizers import TrainingConfig, build_optimizer

logger = logging.getLogger(__name__)

FACTS, DATA, SUMMARY = "facts.jsonl", "data", "summary.json"
UNSEEN = 400  # facts that are never taught, only looked up: what shows whether retrieval finds new names
PIECES = 4_000
SOURCE_LENGTH, TARGET_LENGTH = 96, 64
STEPS = 1_200
VALIDATION, LEAST_VALIDATION = 0.01, 10  # of the prompts that are held out: a share, but about so many at least


def configure(tokenizer, steps=STEPS, shape=None, **training):
    """The `RunConfig` of a bot that starts from nothing: `recipes.best`, for pairs of which a row holds several.

    Args:
        tokenizer: a `Tokenizer`.
        steps: optimiser steps.
        shape: fields of `ModelConfig` that differ, a dictionary.
        training: fields of `TrainingConfig` that differ.
    """
    best = recipes.best()
    lengths = {"source_length": SOURCE_LENGTH, "target_length": TARGET_LENGTH}
    settings = {"vocabulary_size": tokenizer.vocabulary_size, "packed": True, **lengths, **(shape or {})}
    model = dataclasses.replace(best.model, **settings)
    # Of what is nearly known by heart, one batch may well cost many times as much as the next.
    settings = {"steps": steps, "batch_size": 16, "evaluate_seconds": 120.0, "spike_factor": 0.0, **training}
    return join_settings("chatbot", model, dataclasses.replace(best.training, **settings))


def configure_tuning(model, steps, **training):
    """The `RunConfig` in which a model that knows something already goes on learning: it keeps its form.

    Args:
        model: as `load_model` and `from_pretrained` return it.
        steps: optimiser steps.
        training: fields of `TrainingConfig` that differ.
    """
    settings = {"learning_rate": 3e-4, "schedule": "linear", "warmup_steps": max(steps // 20, 1), "clip_norm": 1.0}
    return join_settings("chatbot", model.config, TrainingConfig(**{**settings, "steps": steps, **training}))


def join_settings(recipe, model, training):
    """The `RunConfig` of pairs of texts, for a model and for how it is trained."""
    start = recipes.best()
    return RunConfig(
        recipe=recipe,
        tokens=start.tokens,
        words=dataclasses.replace(start.words, vocabulary_size=model.vocabulary_size - len(SPECIAL_TOKENS)),
        objective=ObjectiveConfig(kind="pairs", packed=model.packed),
        shards=ShardConfig(block_length=model.source_length + model.target_length, overlap=0),
        model=model,
        training=training,
    )


def choose_fraction(pairs):
    """The share of distinct prompts that are held out to be scored: of few pairs a larger one, so that there are some.

    >>> choose_fraction([("a", "b"), ("c", "d")]), choose_fraction([(str(number), "b") for number in range(100)])
    (0.5, 0.1)
    """
    return min(0.5, max(VALIDATION, LEAST_VALIDATION / max(len({prompt for prompt, _ in pairs}), 1)))


def build_tokenizer(pairs: Sequence[tuple[str, str]], pieces=PIECES):
    """The pieces of which prompts and answers are made. Each distinct text counts once."""
    return build_sentence_piece_tokenizer(sorted({text for pair in pairs for text in pair}), pieces)


def teach(pairs: Iterable[tuple[str, str]], tokenizer, run, workdir, model=None) -> Generator:
    """Trains on pairs, and returns what answers. A run that was interrupted goes on; one that is done is loaded.

    Args:
        pairs: (prompt, answer) each, such as `dialogues.make_pairs` and `phrasings.make_lessons` make them.
        tokenizer: a `Tokenizer`, the model's own where there is one.
        run: a `RunConfig`, see `configure` and `configure_tuning`.
        workdir: the folder of the run.
        model: an `EncoderDecoder` to start from, or None to start from nothing.

    Raises:
        UserError: no pair is left, or the folder holds another run.
    """
    workdir = Path(workdir)
    data, sizes = workdir / DATA, (run.model.source_length, run.model.target_length)
    if data.exists():
        shards = load_shards(data)
    else:
        pairs = list(pairs)
        shards = write_pairs(pairs, tokenizer, data, *sizes, run.model.packed, choose_fraction(pairs))
    keras.utils.set_random_seed(run.training.seed)
    if model is None:
        model = build_model(run.model, choose_precision(run.training.precision))
    model.compile(
        optimizer=build_optimizer(run.training),
        loss=build_loss(run.training),
        weighted_metrics=[keras.metrics.SparseCategoricalAccuracy("accuracy")],
    )
    train(model, shards, run, workdir)
    return Generator.load(workdir)


def load_start(name):
    """(model, tokenizer) to start from: the folder of a run of one's own, or a T5 in a folder or on the hub.

    Raises:
        UserError: there is no such model, or no tokenizer beside it.
    """
    if (Path(name) / CHECKPOINTS).is_dir():
        return load_model(name)
    model, tokenizer = from_pretrained(name)
    if tokenizer is None:
        raise UserError(f"expected a tokenizer beside the model of {name}. Received: none. Copy its spiece.model there")
    return model, tokenizer


def teach_dialogues(dialogues, workdir, start=None, steps=STEPS, **settings) -> Generator:
    """Teaches a bot conversations: every answer of the assistant, to as much of what stands before as it can read.

    Args:
        dialogues: as `dialogues.read_dialogues` yields them.
        workdir: the folder of the run; where it holds one that is done, that is loaded.
        start: (model, tokenizer), see `load_start`, or None to start from nothing.
        steps, settings: see `configure` and `configure_tuning`.
    """
    if is_done(workdir):
        return Generator.load(workdir)
    if start is not None:
        model, tokenizer = start
        run = configure_tuning(model, steps, **settings)
    else:
        dialogues = list(dialogues)
        tokenizer, model = build_tokenizer([[message.text for message in one] for one in dialogues]), None
        run = configure(tokenizer, steps, **settings)
    counts = Counter()
    pairs = list(make_pairs(dialogues, lambda text: len(tokenizer.encode(text)), run.model.source_length - 1, counts))
    logger.info("conversations: %s", ", ".join(f"{count} {name}" for name, count in counts.items()) or "none")
    return teach(pairs, tokenizer, run, workdir, model)


def teach_documentation(workdir, packages=PACKAGES, taught=0, unseen=UNSEEN, lessons=16, **settings):
    """Teaches a bot the documentation of the standard library: (`Generator`, facts taught, facts only looked up).

    Args:
        workdir: the folder of the run; where it holds one that is done, that is loaded.
        packages: whose facts can be looked up; those of the standard library are taught.
        taught: how many, at most; 0 is all but the unseen.
        unseen: how many facts of the standard library are not taught.
        lessons: questions of each fact, see `phrasings.make_lessons`.
        settings: see `configure`.
    """
    workdir = Path(workdir)
    if is_done(workdir) and (workdir / FACTS).exists():
        return Generator.load(workdir), *load_facts(workdir / FACTS)
    facts = collect_facts(packages)
    own = [fact for fact in facts if f"/{STANDARD_LIBRARY}/" in fact.address]
    learned = own[unseen:][: taught or len(own)]
    kept = set(learned)
    others = [fact for fact in facts if fact not in kept]
    if not learned:
        raise UserError(f"expected more than {unseen} facts in the documentation. Received: {len(own)}. Hold out fewer")
    logger.info("%d facts to learn, %d more to look up", len(learned), len(others))
    pairs = list(make_lessons(learned, lessons))
    tokenizer = build_tokenizer([*pairs[:: max(lessons // 4, 1)], *((fact.name, fact.summary) for fact in learned)])
    run = configure(tokenizer, **settings)
    workdir.mkdir(parents=True, exist_ok=True)
    write_facts(learned, others, workdir / FACTS)
    return teach(pairs, tokenizer, run, workdir), learned, others


def is_done(workdir) -> bool:
    """Whether a run of a folder came to its end."""
    return (Path(workdir) / CONFIG).exists() and (Path(workdir) / SUMMARY).exists()


def write_facts(learned, others, path):
    """Writes facts as JSON Lines, those that were taught first."""
    rows = [
        {**fact._asdict(), "taught": taught} for part, taught in ((learned, True), (others, False)) for fact in part
    ]
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows).encode())


def load_facts(path):
    """Reads what `write_facts` wrote: (taught, others). Raises UserError for a file that is missing or damaged."""
    parts = {True: [], False: []}
    try:
        for line in Path(path).read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            parts[row.pop("taught")].append(Fact(**row))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"expected the facts of a bot in {path}. Received: {error!r}. Train it anew") from error
    return parts[True], parts[False]
