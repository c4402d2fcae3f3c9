"""One training run from shards to report: what needs the data, the model, the loop and the figures together.

A run lives in one folder:

    config.json      its settings; a run that is resumed must have the same, unless others are allowed
    corpus.json      what tells its shards from others; they must be the same, too, unless others are allowed
    tokenizer.json   what its ids mean
    checkpoints/     weights, optimiser, random state and step
    metrics.jsonl    and tensorboard/: every line of progress
    report.md        loss.png, summary.json: how it ended
"""

import contextlib
import dataclasses
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import tensorflow as tf

from tf_llm.banner import describe_run
from tf_llm.config import check_resumable, load_config, write_config
from tf_llm.contracts import DECODER_IDS, END_ID, PAD_ID, UserError
from tf_llm.data.blocks import read_blocks
from tf_llm.data.objectives import build_objective
from tf_llm.data.pipeline import make_evaluation_batches, make_training_batches
from tf_llm.decoding.generator import Generator
from tf_llm.evaluation.language_model import bigram_nats, bits_per_byte, target_pairs, unigram_nats
from tf_llm.evaluation.report import format_samples, write_report, write_summary
from tf_llm.files import write_atomically
from tf_llm.load import CHECKPOINTS, CONFIG, FRAMES, TOKENIZER
from tf_llm.text.tokenizers import load_tokenizer
from tf_llm.training.checkpoints import Checkpoints
from tf_llm.training.costs import count_flops
from tf_llm.training.devices import measure_peak
from tf_llm.training.movement import Movement
from tf_llm.training.observe import Observer
from tf_llm.training.trainer import Trainer

logger = logging.getLogger(__name__)

DENOISING = ("span_corruption", "denoisers")  # objectives whose training loss says nothing about whole texts
CORPUS = "corpus.json"
COUNTED = 4_000_000  # training tokens at most, spread over the split, that are counted: NLTK holds each as a string
GLIMPSE = 20_000  # validation tokens at most, spread over the split, scored while training and by NLTK's slow bigram
# examples/benchmarks/compare_recipes.py, 2026-11-25: 80 s of training each on 2 cores, three seeds of the last two.
REACHED = (
    "What the recipes reach in the same time, measured on the documentation that came with Python 3.11 and the "
    "packages of November 2026 (2 cores, 80 s), in bits per byte: `article` 2.92 (a unigram of its words 3.01), `t5` "
    "2.52, `transformer` 2.25, `best` 1.73. Only this figure compares recipes that cut texts differently. "
    "`python examples/benchmarks/compare_recipes.py` measures it here."
)
PROMPT_WORDS, SAMPLE_WORDS = 8, 24  # of the continuations in the report


def train(model, shards, run, workdir, origins=None, allow_changes=False):
    """Trains a compiled model on shards, from wherever the folder's run stands, and reports on it.

    Call it inside the scope of the strategy under which the model was built and compiled.

    Args:
        model: as `build_model(run.model)` returns it, compiled.
        shards: as `prepare` returns them.
        run: a `RunConfig`.
        workdir: the folder of the run.
        origins: what set the settings that are not the recipe's, for the banner, see `flags.find_origins`.
        allow_changes: whether a run may go on whose settings or shards were others. What differs is said; its figures
            are those of no one set of settings.

    Returns:
        The figures of `summary.json`, a dictionary.

    Raises:
        UserError: the folder holds a run of other settings or other shards, the corpus is too small, the disk is full.
    """
    workdir = Path(workdir)
    if shards.vocabulary_size > run.model.vocabulary_size:
        raise UserError(
            f"expected model.vocabulary_size of at least {shards.vocabulary_size}, as the shards in {shards.folder} "
            f"have. Received: {run.model.vocabulary_size}. Build the model larger"
        )
    source_length, target_length = run.model.source_length, run.model.target_length
    sizes = {"vocabulary_size": shards.vocabulary_size, "overlap": shards.config.overlap}  # sentinels are the last ids
    objective = build_objective(run.objective, source_length, target_length, training=True, **sizes)
    whole = build_objective(run.objective, source_length, target_length, training=False, **sizes)

    def make_batches(first_batch, host=0, hosts=1):
        settings = run.training
        return make_training_batches(shards, objective, settings.batch_size, settings.seed, first_batch, host, hosts)

    def make_validation(max_tokens=None):
        rows = run.training.batch_size // run.training.accumulation  # as many as a step has in memory at a time
        return make_evaluation_batches(shards, whole, rows, max_tokens=max_tokens)

    make_batches(0), make_validation()  # a corpus that is too small is refused before the folder is touched
    strategy = tf.distribute.get_strategy()
    is_chief = strategy.extended.should_checkpoint  # of several workers, which see the same folder, one writes
    open_folder(workdir, run, shards, is_chief, allow_changes)
    if run.training.start_from_frequencies:  # a run that resumes restores its own biases over these
        ids = read_blocks(shards, "train", COUNTED)[:, 0 if shards.config.joined else shards.config.overlap :]
        counts = np.bincount(ids.ravel(), minlength=run.model.vocabulary_size)
        counts[PAD_ID] = 0
        model.start_from_frequencies(counts)
    about, precision = dataclasses.asdict(run), model.dtype_policy.name
    checkpoints = Checkpoints(workdir / CHECKPOINTS, model, model.optimizer, about=about, writes=is_chief)
    if allow_changes:
        checkpoints.restore()  # settings with which that fails are not to be those of the folder
    if is_chief:
        write_config(run, workdir / CONFIG)
        write_atomically(workdir / CORPUS, json.dumps(describe_corpus(shards), indent=1).encode())
    trainer = Trainer(model, strategy, run.training)
    generate = Generator(model, load_tokenizer(shards.folder / TOKENIZER), FRAMES[run.objective.kind])

    def sample():
        with trainer.step.optimizer.averaged():  # by the weights that are scored
            return format_samples(continue_pages(generate, shards))

    peak = measure_peak(strategy, precision) if is_chief else 0.0  # it is said, and workers may share a machine
    observer = Observer(
        workdir,
        lambda nats: sum(to_bits(nats, shards)),
        run.training.log_seconds,
        trains_on_text=run.objective.kind not in DENOISING,
        ideal_seconds=run.training.batch_size * sum(count_flops(run.model).values()) / peak if peak else None,
        movement=Movement(model.trainable_variables),
        sample_fn=sample,
        profile_steps=run.training.profile_steps,
        is_chief=is_chief,
    )
    observer.say(describe_run(run, strategy, workdir, " + ".join(map(str, shards.folders)), origins, precision, peak))
    try:
        clock = trainer.train(make_batches, checkpoints, observer, lambda: trainer.evaluate(make_validation(GLIMPSE)))
        model.optimizer.finalize_variable_values(model.trainable_variables)  # to their running means, where it has some
        sums = trainer.evaluate(make_validation())
        observer.validation(int(checkpoints.step), sums)
    finally:
        observer.close()
    moved = run.training.batch_size * (source_length + target_length)
    summary = {
        "recipe": run.recipe,
        "source": shards.about["settings"]["source"],
        **compare(sums.loss, shards, whole),
        "tokens_per_second": round(clock.steps * moved / max(clock.total, 1e-9), 1),
        "seconds": round(clock.total, 2),
        "steps": int(checkpoints.step),
        "parameters": model.count_params(),
        "accuracy": sums.accuracy,
        "train_tokens": shards.train.tokens,
        "validation_tokens": shards.validation.tokens,
        "seed": run.training.seed,
    }
    if is_chief:
        samples = continue_pages(generate, shards)
        with explain_full_disk(workdir):
            write_summary(workdir, summary)
            write_report(workdir, summary, shards.about, samples, suggest(summary, workdir))
    trainer.mean_of_workers(0)  # so that none leaves before the others, to whom it would look as if it had died
    return summary


def open_folder(workdir, run, shards, is_chief=True, allow_changes=False):
    """Makes the folder of a run, or finds it: what it holds must fit what is to be done, unless others are allowed."""
    if (workdir / CONFIG).exists():
        check_resumable(load_config(workdir / CONFIG), run, allow_changes)
        check_corpus(workdir / CORPUS, shards, allow_changes)
    if not is_chief:
        return
    with explain_full_disk(workdir):
        workdir.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(shards.folder / TOKENIZER, workdir / TOKENIZER)


def describe_corpus(shards):
    """What `corpus.json` keeps of the shards of a run: enough to know them again, wherever they lie."""
    return {
        "fingerprint": shards.fingerprint,
        "folders": [str(folder) for folder in shards.folders],
        "train_tokens": shards.train.tokens,
        "validation_tokens": shards.validation.tokens,
    }


def check_corpus(path, shards, allow_changes=False):
    """Raises UserError where a run would go on with other shards than it began with; if that is allowed, it is said.

    Batch n is a function of the seed, n and the corpus: with another one, or one that grew, it is another batch.
    """
    try:
        before = json.loads(path.read_bytes())
        same, folders = before["fingerprint"] == shards.fingerprint, ", ".join(before["folders"])
        received = f"{before['train_tokens']:,} training tokens in {folders} -> {shards.train.tokens:,} in "
    except FileNotFoundError:  # a run of before there was this file
        return
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"expected what tells the shards of a run in {path}. Received: {error!r}. Remove it if they are the same"
        ) from error
    received += ", ".join(map(str, shards.folders))
    if not same and allow_changes:
        logger.warning("going on with other shards than this run began with: %s", received)
    elif not same:
        raise UserError(
            f"expected the shards that this folder's run began with. Received: {received}. Use another --workdir, or "
            "the same shards; or allow it (--allow_changes)"
        )


@contextlib.contextmanager
def explain_full_disk(workdir):
    """Turns an error of the disk into one with a remedy."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"expected room for a run in {workdir}. Received: {error}. Make room, or choose another folder"
        ) from error


def to_bits(nats_per_token, shards):
    """Bits per byte of the validation pages' text at so many nats per kept token: (of them, of what was removed)."""
    split = shards.validation
    return bits_per_byte(nats_per_token, split.tokens, split.residual_nats, split.text_bytes)


def compare(loss, shards, objective):
    """The model's validation loss beside the two baselines, in nats per token and in bits per byte.

    These learn from COUNTED training tokens at most. `objective` is the one that scored the validation split.
    """
    train, validation = (
        read_pairs(shards, objective, split, most) for split, most in (("train", COUNTED), ("validation", None))
    )
    glimpse = validation[:: -(-len(validation) // GLIMPSE)]
    nats = {
        "validation": loss,
        "unigram": unigram_nats(train, validation, shards.vocabulary_size),
        "bigram": bigram_nats(train, glimpse, shards.vocabulary_size),
    }
    return {
        **{f"{name}_nats_per_token": value for name, value in nats.items()},
        **{f"{name}_bits_per_byte": sum(to_bits(value, shards)) for name, value in nats.items()},
        "removed_bits_per_byte": to_bits(loss, shards)[1],
        "bigram_tokens": len(glimpse),
    }


def read_pairs(shards, objective, split, max_tokens=None):
    """Each target of a split, or of a part of it, with the token before it: int64 [targets, 2]."""
    if not shards.config.overlap:  # pairs of texts: the blocks do not say by themselves what is a target
        rows = make_evaluation_batches(shards, objective, 1, split, max_tokens).as_numpy_iterator()
        kept = [(said[DECODER_IDS][weights > 0], targets[weights > 0]) for said, targets, weights in rows]
        return np.concatenate([np.stack(columns, axis=1) for columns in kept]).astype("int64")
    joined = shards.config.joined and split == "train"
    return target_pairs(read_blocks(shards, split, max_tokens), 1 if joined else shards.config.overlap)


def continue_pages(generate, shards, count=3):
    """[(prompt, the model's continuation, the page's own words)] for a few validation pages."""
    blocks, decode = read_blocks(shards, "validation"), generate.tokenizer.decode
    overlap = shards.config.overlap
    if not overlap:  # pairs of texts, as `write_pairs` stores them: source, END_ID, target, END_ID
        parts = [np.split(block, np.flatnonzero(block == END_ID)[:2]) for block in blocks[:count]]
        asked, answers = ([decode(part[side].tolist()) for part in parts] for side in (0, 1))
        return list(zip(asked, generate(asked, max_new_tokens=SAMPLE_WORDS), answers, strict=True))
    begins = np.all(blocks[:, : overlap - 1] == 0, axis=1)  # nothing stands in front of a page's first block
    long = np.count_nonzero(blocks[:, overlap:], axis=1) >= PROMPT_WORDS + SAMPLE_WORDS
    pages = blocks[begins & long] if np.any(begins & long) else blocks[begins]
    pages = pages[np.linspace(0, len(pages) - 1, min(count, len(pages))).astype(int), overlap:].astype("int32")
    prompts = [decode(page[:PROMPT_WORDS].tolist()) for page in pages]
    truths = [decode(page[PROMPT_WORDS : PROMPT_WORDS + SAMPLE_WORDS].tolist()) for page in pages]
    return list(zip(prompts, generate(prompts, max_new_tokens=SAMPLE_WORDS), truths, strict=True))


def suggest(summary, workdir):
    """How to go on from here: the closing paragraphs of a report."""
    other = "article" if summary["recipe"] == "best" else "best"
    load = f"import tf_llm; print(tf_llm.Generator.load('{workdir}')('The transformer architecture'))"
    commands = [
        f"python examples/train_common_crawl.py --recipe={other} --workdir={workdir.with_name(other)}",
        f'python -c "{load}"',
        f"tensorboard --logdir {workdir}/tensorboard",
    ]
    return [REACHED, "```\n" + "\n".join(commands) + "\n```"]
