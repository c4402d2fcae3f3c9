"""One run's settings: the settings of every stage, composed, checked against each other, written and read as JSON.

Each stage's dataclass stands in the file that uses it. A variant of a run is `dataclasses.replace`:

    >>> run = RunConfig()
    >>> wide = dataclasses.replace(run, model=dataclasses.replace(run.model, d_model=512, num_heads=8))
    >>> list_differences(run, wide)
    ['model.num_heads: 4 -> 8', 'model.d_model: 256 -> 512']
"""

import dataclasses
import json
import logging
from pathlib import Path

from tf_llm.contracts import SPECIAL_TOKENS, UserError
from tf_llm.data.objectives import ObjectiveConfig, check_lengths, sentinels_needed
from tf_llm.data.shards import ShardConfig
from tf_llm.files import write_atomically
from tf_llm.model.config import ModelConfig
from tf_llm.prepare.worker import WorkerConfig
from tf_llm.text.duplicate_keys import DuplicatesConfig
from tf_llm.text.filters import FilterConfig
from tf_llm.text.html import HtmlConfig
from tf_llm.text.words import WordsConfig
from tf_llm.training.optimizers import TrainingConfig

logger = logging.getLogger(__name__)

TOKENS = ("words", "characters", "unigram", "bpe")
STAGES = {
    "html": HtmlConfig,
    "filters": FilterConfig,
    "duplicates": DuplicatesConfig,
    "words": WordsConfig,
    "shards": ShardConfig,
    "workers": WorkerConfig,
    "objective": ObjectiveConfig,
    "model": ModelConfig,
    "training": TrainingConfig,
}
# What may change between the two halves of a run that was interrupted, since it changes no number.
FREE_TO_CHANGE = (
    "workers.",
    "training.log_seconds",
    "training.evaluate_seconds",
    "training.checkpoint_seconds",
    "training.profile_steps",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """All settings of a run. The defaults are those of the recipe `article`."""

    recipe: str = "article"  # the name under which the settings were put together
    tokens: str = "words"  # what the model reads and says, one of TOKENS
    html: HtmlConfig = dataclasses.field(default_factory=HtmlConfig)
    filters: FilterConfig = dataclasses.field(default_factory=FilterConfig)
    duplicates: DuplicatesConfig = dataclasses.field(default_factory=DuplicatesConfig)
    words: WordsConfig = dataclasses.field(default_factory=WordsConfig)
    shards: ShardConfig = dataclasses.field(default_factory=ShardConfig)
    workers: WorkerConfig = dataclasses.field(default_factory=WorkerConfig)
    objective: ObjectiveConfig = dataclasses.field(default_factory=ObjectiveConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)

    def __post_init__(self):
        if self.tokens not in TOKENS:
            raise ValueError(f"tokens is expected to be one of {list(TOKENS)}. Received: {self.tokens!r}")
        check_lengths(
            self.objective,
            self.shards.block_length,
            self.shards.overlap,
            self.model.source_length,
            self.model.target_length,
        )
        if self.model.packed != self.objective.packed:
            raise ValueError(
                "model.packed and objective.packed are expected to be alike: one reads the columns that the other "
                f"makes. Received: {self.model.packed} and {self.objective.packed}"
            )
        if self.model.target_vocabulary_size:
            raise ValueError(
                "model.target_vocabulary_size is expected to be 0 in a run: its shards have one vocabulary for both "
                f"sides. Received: {self.model.target_vocabulary_size}"
            )
        if self.training.start_from_frequencies and not self.model.output_bias:
            raise ValueError(
                "model.output_bias is expected to be True where training.start_from_frequencies is. Received: False"
            )
        needed = self.words.vocabulary_size + len(SPECIAL_TOKENS) + self.sentinels
        if self.model.vocabulary_size < needed:
            raise ValueError(
                f"model.vocabulary_size is expected to be at least words.vocabulary_size + {len(SPECIAL_TOKENS)} and "
                f"the {self.sentinels} sentinels of the objective. Received: {self.model.vocabulary_size}, with "
                f"words.vocabulary_size={self.words.vocabulary_size}"
            )

    @property
    def sentinels(self):
        """How many ids of the vocabulary the objective has to itself."""
        return sentinels_needed(self.objective)


def list_differences(one, other):
    """What differs between two runs, one "stage.field: before -> after" each."""
    before, after = flatten(one), flatten(other)
    return [f"{name}: {before[name]} -> {after[name]}" for name in before if before[name] != after[name]]


def flatten(run):
    """{"stage.field": value} of a run."""
    nested = dataclasses.asdict(run)
    flat = {name: value for name, value in nested.items() if name not in STAGES}
    return flat | {f"{stage}.{field}": value for stage in STAGES for field, value in nested[stage].items()}


def write_config(run, path):
    """Writes a run's settings as JSON, whole or not at all."""
    write_atomically(path, json.dumps(dataclasses.asdict(run), indent=1).encode())


def load_config(path):
    """Reads what `write_config` wrote. Raises UserError for a file that is missing, damaged or of another version."""
    path = Path(path)
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        return RunConfig(**{name: STAGES[name](**value) if name in STAGES else value for name, value in saved.items()})
    except OSError as error:
        raise UserError(
            f"expected the settings of a run at {path}. Received: {error.strerror}. Name the --workdir of a run"
        ) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"expected the settings of a run of this version in {path}. Received: {error}. Train in another folder"
        ) from error


def check_resumable(before, now, allow_changes=False):
    """Raises UserError where a run would go on as `now` that began as `before`; if that is allowed, it is said."""
    differences = [line for line in list_differences(before, now) if not line.startswith(FREE_TO_CHANGE)]
    if differences and allow_changes:
        logger.warning("going on with other settings than this run began with: %s", "; ".join(differences))
    elif differences:
        raise UserError(
            f"expected the settings that this folder's run began with. Received: {'; '.join(differences)}. "
            "Use another --workdir, or the same settings; or allow it (--allow_changes)"
        )
