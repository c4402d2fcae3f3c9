"""What is asked for when a text is asked for, by the names that Hugging Face's `GenerationConfig` has.

Glossary: N rows, P tokens of a prefix.
"""

import dataclasses
import math

import numpy as np

from tf_llm.decoding import logits
from tf_llm.decoding.beam import MANNERS
from tf_llm.decoding.constraints import Automaton
from tf_llm.decoding.draws import split_seeds
from tf_llm.decoding.strategies import Greedy, Sample

# Least, most and kind of the settings that are numbers.
BOUNDS = {
    "max_new_tokens": (1, math.inf, int),
    "min_new_tokens": (0, math.inf, int),
    "temperature": (0, math.inf, float),
    "top_k": (0, math.inf, int),
    "top_p": (0, 1, float),
    "min_p": (0, 1, float),
    "typical_p": (0, 1, float),
    "num_beams": (1, math.inf, int),
    "length_penalty": (0, math.inf, float),
    "num_return_sequences": (1, math.inf, int),
    "repetition_penalty": (0, math.inf, float),
    "no_repeat_ngram_size": (0, math.inf, int),
    "penalty_alpha": (0, 1, float),
    "num_assistant_tokens": (0, math.inf, int),
    "seed": (0, 2**63 - 1, int),
}
DRAWING = ("temperature", "top_k", "top_p", "min_p", "typical_p")
# What rows that are said together may not differ in.
SHARED = (
    "num_beams",
    "length_penalty",
    "beam_manner",
    "num_return_sequences",
    "suppress_tokens",
    "bad_words_ids",
    "penalty_alpha",
    "constraint",
    "num_assistant_tokens",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """How texts are said. The names, and what they do, are those of transformers; exceptions are named here.

    >>> GenerationConfig(do_sample=True, temperature=0.8).with_settings(num_beams=4).do_sample
    False
    """

    max_new_tokens: int = 64  # at most
    min_new_tokens: int = 0  # at least, before the end
    do_sample: bool = False  # whether tokens are drawn; else the likeliest is said
    temperature: float = 1.0  # logits are divided by it before a draw; 0 says the likeliest
    top_k: int = 0  # draw from so many of the likeliest; 0 (there 50) from all
    top_p: float = 1.0  # draw from the fewest that have this probability together
    min_p: float = 0.0  # draw from what has this share of the likeliest one's probability
    typical_p: float = 1.0  # draw from the most typical that have this probability together
    num_beams: int = 1  # hypotheses a row; more than 1 searches (beam.py)
    length_penalty: float = 0.6  # of the search: α in log p / ((5 + L) / 6)^α; there log p / L^α, and α is 1
    beam_manner: str = "tf_models"  # or "hugging_face", which searches as transformers does (beam.py)
    num_return_sequences: int = 1  # texts a prompt: so many draws, or the best so many of the search
    repetition_penalty: float = 1.0  # above 1 makes less likely what the text has said already
    no_repeat_ngram_size: int = 0  # no sequence of so many tokens is said twice; 0 allows it
    suppress_tokens: tuple = ()  # ids that are never said, besides padding and unknown
    bad_words_ids: tuple = ()  # sequences of ids that are never said
    prefix: str = ""  # what each text begins with, whatever the model thinks; it counts as said
    stop_strings: tuple = ()  # a text ends in front of the first of these
    penalty_alpha: float = 0.0  # α of contrastive search among the top_k likeliest (contrastive.py); 0 is none
    constraint: Automaton | None = None  # what may be said at all (constraints.py)
    num_assistant_tokens: int = 4  # guesses of a generator's draft at a time (speculative.py); 0 goes without it
    seed: int = 0  # of all that is drawn: the same seed draws the same, alone and in company

    def __post_init__(self):
        for name, (least, most, kind) in BOUNDS.items():
            value = getattr(self, name)
            fits = isinstance(value, (int, float) if kind is float else int) and not isinstance(value, bool)
            if not fits or not least <= value <= most or value == math.inf:
                word = "a whole number" if kind is int else "a number"
                bounds = f"of at least {least}" if most == math.inf else f"in [{least}, {most}]"
                raise ValueError(f"{name} is expected to be {word} {bounds}. Received: {value!r}")
        if not self.repetition_penalty > 0:
            raise ValueError(f"repetition_penalty is expected to be above 0. Received: {self.repetition_penalty!r}")
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError(
                f"min_new_tokens is expected to be at most max_new_tokens, {self.max_new_tokens}. Received: "
                f"{self.min_new_tokens}"
            )
        if isinstance(self.stop_strings, str):
            object.__setattr__(self, "stop_strings", (self.stop_strings,))
        for name in ("stop_strings", "suppress_tokens"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "bad_words_ids", tuple(tuple(ids) for ids in self.bad_words_ids))
        if not all(isinstance(text, str) and text for text in self.stop_strings):
            raise ValueError(
                f"stop_strings is expected to hold texts, none of them empty. Received: {self.stop_strings}"
            )
        if not all(self.bad_words_ids):
            raise ValueError(f"bad_words_ids is expected to hold sequences of ids. Received: {self.bad_words_ids}")
        if self.beam_manner not in MANNERS:
            raise ValueError(f"beam_manner is expected to be one of {list(MANNERS)}. Received: {self.beam_manner!r}")
        for name, others in (("num_beams", ("do_sample",)), ("penalty_alpha", ("do_sample", "constraint"))):
            for other in others:
                is_asked = getattr(self, name) > (1 if name == "num_beams" else 0)
                if is_asked and getattr(self, other):
                    raise ValueError(f"{name} is expected to be left out with {other}. Received: {getattr(self, name)}")
        if self.contrasts and (self.num_beams > 1 or self.top_k < 2):
            received = f"num_beams={self.num_beams}, top_k={self.top_k}"
            raise ValueError(f"penalty_alpha expects num_beams=1 and a top_k of at least 2. Received: {received}")
        most = self.num_beams if not self.draws else math.inf
        if self.num_return_sequences > most:
            raise ValueError(
                f"num_return_sequences is expected to be at most num_beams, {self.num_beams}, where nothing is drawn. "
                f"Received: {self.num_return_sequences}; set do_sample=True or more beams"
            )

    @property
    def draws(self):
        """Whether chance plays a part."""
        return self.do_sample and self.temperature > 0

    @property
    def contrasts(self):
        """Whether it is contrastive search."""
        return self.penalty_alpha > 0

    def with_settings(self, **settings):
        """The same but for `settings`; what they imply comes with them.

        Several beams, or a penalty_alpha, imply that nothing is drawn; the latter a top_k of 4 besides. A setting of
        the draw (temperature, top_k, top_p, min_p, typical_p) implies that tokens are drawn; transformers would pass
        over it in silence.
        """
        known = [field.name for field in dataclasses.fields(self)]
        if unknown := sorted(set(settings) - set(known)):
            raise ValueError(f"settings are expected to be among {known}. Received: {unknown[0]!r}")
        if "do_sample" not in settings:
            if settings.get("num_beams", 1) > 1 or settings.get("penalty_alpha", 0) > 0:
                settings["do_sample"] = False
            elif any(name in settings for name in DRAWING):
                settings["do_sample"] = True
        if settings.get("penalty_alpha", 0) > 0:
            settings.setdefault("top_k", 4)
        if settings.get("do_sample"):
            settings = {"num_beams": 1, "penalty_alpha": 0.0, **settings}
        return dataclasses.replace(self, **settings)


def stack_settings(configs, prefixes=()):
    """What differs from row to row, as tensors: a list of N `GenerationConfig`s -> (arrays, fixed).

    Settings that change nothing in any row are not among them, so that the graph has no part for them.

    Args:
        configs: those of rows that are said together; they agree in SHARED.
        prefixes: N lists of ids, or nothing.

    Returns:
        A dictionary of arrays that lead with N; one of plain numbers and tuples, for which a graph is made; and the
        table of the constraint (`Automaton.table`), or an empty dictionary.
    """
    for name in SHARED:
        if len({getattr(config, name) for config in configs}) > 1:
            received = [getattr(config, name) for config in configs]
            raise ValueError(f"{name} is expected to be the same for all rows of a batch. Received: {received}")
    arrays, fixed = {}, {}

    def stack(name, neutral, dtype, rows=None):
        values = [getattr(config, name) for config in configs] if rows is None else rows
        if any(value != neutral for value in values):
            arrays[name] = np.array(values, dtype)

    if any(config.draws for config in configs):
        arrays["temperature"] = np.array([config.temperature * config.draws for config in configs], "float32")
        arrays["seeds"] = split_seeds([config.seed for config in configs])
        for name, neutral in (("top_p", 1.0), ("min_p", 0.0), ("typical_p", 1.0)):
            stack(name, neutral, "float32")
        stack("top_k", 0, "int32")
        if "top_k" in arrays:
            fixed["widest"] = 2 ** math.ceil(math.log2(arrays["top_k"].max()))
    stack("min_new_tokens", 0, "int32")
    stack("repetition_penalty", 1.0, "float32")
    stack("no_repeat_ngram_size", 0, "int32")
    if "no_repeat_ngram_size" in arrays:
        fixed["longest"] = int(arrays["no_repeat_ngram_size"].max())
    if any(prefixes):
        width = 2 ** math.ceil(math.log2(max(map(len, prefixes))))
        arrays["prefix"] = np.array([[*ids, *[0] * (width - len(ids))] for ids in prefixes], "int32")
    fixed["never"] = (*logits.NEVER_SAID, *configs[0].suppress_tokens)
    fixed["never_in_a_row"] = configs[0].bad_words_ids
    table = {}
    if configs[0].constraint is not None:
        table, fixed["widest_state"] = configs[0].constraint.table()
    if configs[0].contrasts:
        if len({config.top_k for config in configs}) > 1:
            received = [config.top_k for config in configs]
            raise ValueError(f"top_k is expected to be the same for all rows with penalty_alpha. Received: {received}")
        fixed["contrast"] = configs[0].penalty_alpha, configs[0].top_k
    return arrays, fixed, table


def name_shapes(arrays, fixed, table):
    """By what graphs that are made for settings differ, as a tuple. How many rows there are is not part of it."""
    shapes = [(name, array.shape[1:]) for name, array in sorted(arrays.items())]
    sizes = [(name, column.shape) for name, column in sorted(table.items())]
    return (*shapes, *sizes, *sorted(fixed.items()))


def choose_strategy(arrays, fixed):
    """What `stack_settings` returned, the arrays as tensors -> a strategy."""
    if "temperature" not in arrays:
        return Greedy()
    cuts = {name: arrays[name] for name in DRAWING if name in arrays}
    return Sample(**cuts, widest=fixed.get("widest", 0))


def choose_rules(arrays, fixed):
    """What `stack_settings` returned, the arrays as tensors -> rules, in the order in which they are applied."""
    rules = [logits.Never(fixed["never"])]
    if "repetition_penalty" in arrays:
        rules.append(logits.RepetitionPenalty(arrays["repetition_penalty"]))
    if "no_repeat_ngram_size" in arrays:
        rules.append(logits.NoRepeatedNgram(arrays["no_repeat_ngram_size"], fixed["longest"]))
    if fixed["never_in_a_row"]:
        rules.append(logits.NeverInARow(fixed["never_in_a_row"]))
    if "min_new_tokens" in arrays:
        rules.append(logits.LeastLength(arrays["min_new_tokens"]))
    if "prefix" in arrays:
        rules.append(logits.Prefix(arrays["prefix"]))
    return tuple(rules)
