"""A run in which a model learns to understand requests, with the trainer of every other run: it resumes by itself."""

import dataclasses
import json
import logging
import math
from pathlib import Path

import tensorflow as tf

from tf_llm.apps.assistant.call_tokens import CallTokenizer
from tf_llm.apps.assistant.calls import OUT_OF_SCOPE
from tf_llm.apps.assistant.lessons import Lessons
from tf_llm.apps.assistant.phrasings import generate_utterances
from tf_llm.apps.assistant.understanding import CHECKPOINTS, SETTINGS, TOKENIZER, Understanding, load_understanding
from tf_llm.contracts import UserError
from tf_llm.evaluation.understanding import choose_threshold
from tf_llm.files import write_atomically
from tf_llm.model.config import ModelConfig
from tf_llm.model.encoder_decoder import build_model
from tf_llm.training.checkpoints import Checkpoints
from tf_llm.training.losses import build_loss
from tf_llm.training.observe import Observer
from tf_llm.training.optimizers import TrainingConfig, build_optimizer
from tf_llm.training.trainer import Trainer

logger = logging.getLogger(__name__)
UTTERANCES = 20_000  # of the grammar, to learn from
TRAINING = TrainingConfig(
    optimizer="adamw",
    learning_rate=1e-3,
    schedule="linear",
    warmup_steps=200,
    weight_decay=0.01,
    clip_norm=1.0,
    label_smoothing=0.1,
    ema_decay=0.998,
    steps=9000,
    evaluate_seconds=60.0,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeachingConfig:
    """How an understanding is trained; the defaults are what paid on SNIPS (BUILD_NOTES.md)."""

    places: int = 39  # words that a request may have
    least_count: int = 1  # of a word in the training requests; rarer ones are unknown
    requests: int = 16  # of a batch
    rows: int = 6  # that they share
    swap: float = 0.3  # chance of a slot to get the words of another request
    unknown: float = 0.25  # how readily rare words are hidden, see lessons.py
    hide: float = 0.1  # chance of any word to be hidden
    insert: float = 0.05  # chance of an unknown word between any two
    d_model: int = 128  # D
    num_layers: int = 2  # blocks of the encoder
    num_decoder_layers: int = 1
    dropout: float = 0.1
    least_in_scope: float = 0.99  # of what is understood in the validation requests must not be refused
    training: TrainingConfig = dataclasses.field(default_factory=lambda: TRAINING)


def train_understanding(utterances, validation, folder, config=None):
    """Trains the understanding of an assistant, from wherever the folder's run stands.

    Args:
        utterances: `Utterance`s to learn from.
        validation: `Utterance`s to follow the run by, and to choose the threshold by where some are out of scope.
        folder: of the run.
        config: a `TeachingConfig`.

    Returns:
        The `Understanding`.

    Raises:
        UserError: there is nothing to learn from; the folder holds a run of another vocabulary.
    """
    config, folder = config or TeachingConfig(), Path(folder)
    utterances, validation = list(utterances), list(validation)
    if not utterances:
        raise UserError("expected utterances to learn from. Received: none. Take more")
    tokenizer = CallTokenizer.from_utterances(utterances, config.places, config.least_count)
    keep_tokenizer(tokenizer, folder)
    model_config = plan_model(tokenizer, config)
    model = build_model(model_config)
    model.compile(optimizer=build_optimizer(config.training), loss=build_loss(config.training))
    checkpoints = Checkpoints(folder / CHECKPOINTS, model, model.optimizer)
    trainer = Trainer(model, tf.distribute.get_strategy(), config.training)
    lessons = Lessons(utterances, tokenizer, model_config, config)
    exam = Lessons(validation, tokenizer, model_config, dataclasses.replace(config, swap=0.0, unknown=0.0, hide=0.0))
    for reason, count in lessons.rejections.items():
        logger.warning("%d of %d utterances are left out: %s", count, len(utterances), reason)
    said = sum(len(utterance.text.encode()) for utterance in exam.utterances) / math.log2(math.e)
    observer = Observer(folder, lambda nats: nats * exam.target_tokens / max(said, 1.0))
    try:
        trainer.train(lessons.make_batches, checkpoints, observer, lambda: trainer.evaluate(exam.make_exam()))
        model.optimizer.finalize_variable_values(model.trainable_variables)
    finally:
        observer.close()
    understand = Understanding(model, tokenizer)
    understand.threshold = find_threshold(understand, validation, config.least_in_scope)
    write_settings(folder, model_config, understand.threshold)
    return understand


def find_understanding(folder, config=None):
    """The understanding in a folder. If there is none yet, or it is not finished, it learns this package's own grammar.

    Args:
        folder: of the run.
        config: a `TeachingConfig`.

    >>> understand = find_understanding("runs/assistant")   # doctest: +SKIP
    """
    folder = Path(folder)
    if (folder / SETTINGS).exists():
        return load_understanding(folder)
    return train_understanding(*draw_grammar(), folder, config)


def draw_grammar():
    """(what to learn from, what to follow the run by) of the grammar in phrasings.py; neither has what is held out."""
    return generate_utterances(0, UTTERANCES), generate_utterances(1, UTTERANCES // 40)


def plan_model(tokenizer, config):
    """The `ModelConfig` for a vocabulary: a small one of today's form, several requests to a row."""
    dropouts = ("embedding_dropout", "residual_dropout", "feed_forward_dropout")
    return ModelConfig(
        vocabulary_size=tokenizer.source_vocabulary_size,
        target_vocabulary_size=tokenizer.vocabulary_size,
        embeddings="none",
        source_length=config.places + 1,
        # The name, a tag for each word, the end; without slots a name and an end for each of the requests of a row.
        target_length=config.places + 2 if any(tokenizer.tools.values()) else config.places // 3 + 1,
        num_layers=config.num_layers,
        num_decoder_layers=config.num_decoder_layers,
        d_model=config.d_model,
        d_ff=config.d_model * 8 // 3 // 8 * 8,  # with its gate, as many weights as 4 · d_model without
        context="sequence",
        positions="learned",
        short_convolution=3,
        norm="rms",
        input_norm="none",
        activation="swiglu",
        feed_forward_bias=False,
        output_l2=0.0,
        packed=True,
        **dict.fromkeys(dropouts, config.dropout),
    )


def find_threshold(understand, validation, least_in_scope):
    """The confidence below which to refuse; 0.0 where no validation utterance is out of scope.

    Args:
        understand: an `Understanding` that refuses nothing.
        validation: `Utterance`s.
        least_in_scope: share of those that were understood that must not be refused.
    """
    if all(utterance.name != OUT_OF_SCOPE for utterance in validation):
        return 0.0
    confidences, right, in_scope = judge(understand, validation)
    return choose_threshold(confidences, right, in_scope, least_in_scope * sum(right) / max(1, sum(in_scope)))


def judge(understand, utterances):
    """How sure the names of tools are that utterances were given, and whether they are right.

    Args:
        understand: an `Understanding` that refuses nothing.
        utterances: `Utterance`s.

    Returns:
        What `choose_threshold` takes: confidences, and whether each name is right, and whether it is in scope.
    """
    made = understand.understand_all([utterance.text for utterance in utterances])
    right = [one.call is not None and one.call.name == said.name for one, said in zip(made, utterances, strict=True)]
    return [one.confidence for one in made], right, [utterance.name != OUT_OF_SCOPE for utterance in utterances]


def keep_tokenizer(tokenizer, folder):
    """Writes the tokenizer of a run, or finds that the run has another one."""
    path = folder / TOKENIZER
    if path.exists() and vars(CallTokenizer.load(path)) != vars(tokenizer):
        raise UserError(
            f"expected the words and tools with which the run in {folder} began. Received: others. Use the same "
            "utterances, or another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(path)


def write_settings(folder, model, threshold):
    """Writes what `load_understanding` needs besides the weights, last of all: a folder that has it is finished."""
    settings = {"model": dataclasses.asdict(model), "threshold": threshold}
    write_atomically(folder / SETTINGS, json.dumps(settings, indent=1).encode())
