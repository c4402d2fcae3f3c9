"""How well does the assistant understand? On requests that others have collected, and on those of its own grammar.

    python examples/benchmarks/assistant_quality.py            about an hour on 2 cores
    python examples/benchmarks/assistant_quality.py --quick    under a minute: a few requests, learnt by heart

Three understandings are trained from scratch, each on its training part alone:

    snips     13,084 requests, 7 intents, 39 slots; scored on its validation part
    clinc150  15,000 requests of 150 intents, and 100 that are out of scope; scored on its validation part, with the
              threshold of confidence that keeps 92 % of what is in scope right, if there is one
    assistant utterances of this package's grammar; scored on phrasings, and half of the words, that no training
              utterance has

Beside the intents stand those of naive Bayes on the same words. A slot is right with its exact words. What is said is
parsed (`parse_call`), each of it. `--part=test` scores the test parts, where the folder has them.

Needs dialogue/snips and dialogue/clinc150 in the folder that --data or TF_LLM_DATA names (apps/assistant/corpora.py
says from where). `--picture=FILE.png` draws the figures.
"""

import dataclasses
import json
import logging
import math
import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

from absl import app, flags

from tf_llm.apps.assistant.call_tokens import find_words
from tf_llm.apps.assistant.calls import OUT_OF_SCOPE, parse_call
from tf_llm.apps.assistant.corpora import read_clinc, read_snips
from tf_llm.apps.assistant.phrasings import generate_utterances
from tf_llm.apps.assistant.teaching import TeachingConfig, draw_grammar, judge, train_understanding
from tf_llm.contracts import UserError
from tf_llm.evaluation.understanding import choose_threshold, score_frames

GOALS = {  # corpus -> measure -> least
    "snips": {"intent_accuracy": 0.97, "slot_f1": 0.92, "exact_frame": 0.82, "parseable": 1.0},
    "clinc150": {"in_scope_accuracy": 0.92, "out_of_scope_recall": 0.5, "parseable": 1.0},
    "assistant": {"intent_accuracy": 0.9, "exact_frame": 0.8, "parseable": 1.0},
}
IN_SCOPE = 0.92  # to be kept right on CLINC150
HELD_OUT = 2_000  # utterances of the grammar to score
QUICK_GOAL = 0.9  # of the requests learnt by heart, exact frames
QUICK_STEPS = 250

_DATA = flags.DEFINE_string("data", os.environ.get("TF_LLM_DATA", "../shared/data"), "The folder of test data.")
_QUICK = flags.DEFINE_bool("quick", False, "A few requests, learnt by heart, against a sanity bound.")
_ONLY = flags.DEFINE_list("only", list(GOALS), "Which corpora.")
_PART = flags.DEFINE_enum("part", "valid", ["valid", "test"], "Which part of SNIPS and CLINC150 is scored.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where the runs go, which a later call finds; a temporary folder.")
_PICTURE = flags.DEFINE_string("picture", None, "A .png file to draw the figures into.")


def load_corpus(name, folder):
    """(training, validation, utterances to score) of a corpus."""
    if name == "assistant":
        return *draw_grammar(), generate_utterances(2, HELD_OUT, held_out=True)
    if name == "snips":
        train, validation = (read_snips(folder / "snips" / part) for part in ("train", "valid"))
        return train, validation, validation if _PART.value == "valid" else read_snips(folder / "snips" / "test")
    path = next((path for path in (folder / "clinc150").glob("data_*.json")), folder / "clinc150" / "data_full.json")
    train, validation = (read_clinc(path, part) for part in ("train", "val"))
    return train, validation, validation if _PART.value == "valid" else read_clinc(path, "test")


def take_few(utterances, count=15):
    """The first `count` utterances of each of five intents, out of scope among them where there is such."""
    by_name = defaultdict(list)
    for utterance in utterances:
        by_name[utterance.name].append(utterance)
    names = sorted(by_name, key=lambda name: name != OUT_OF_SCOPE)[:5]
    return [utterance for name in names for utterance in by_name[name][:count]]


def list_words(utterance):
    text = utterance.text.lower()
    return [text[begin:end] for begin, end in find_words(text)]


def classify_by_bayes(train, utterances):
    """The intent of each utterance by multinomial naive Bayes with Laplace's prior on words, the baseline."""
    counts, totals = defaultdict(Counter), Counter(utterance.name for utterance in train)
    for utterance in train:
        counts[utterance.name].update(list_words(utterance))
    words = len({word for counter in counts.values() for word in counter})
    sizes = {name: math.log(counter.total() + words) for name, counter in counts.items()}

    def score(name, said):
        return math.log(totals[name]) + sum(math.log(counts[name][word] + 1) - sizes[name] for word in said)

    return [max(counts, key=lambda name: score(name, said)) for said in map(list_words, utterances)]


def as_frame(call):
    return call and (call.name, call.arguments)


def can_be_parsed(call):
    return call is None or parse_call(str(call)) == call


def measure(name, folder, workdir):
    """The figures of one corpus, a dictionary."""
    train, validation, scored = load_corpus(name, folder)
    config = TeachingConfig()
    if _QUICK.value:
        train = take_few(train)
        validation = scored = train
        training = {"steps": QUICK_STEPS, "warmup_steps": 20, "learning_rate": 3e-3, "ema_decay": 0.0}
        changes = dict.fromkeys(("swap", "unknown", "hide", "insert", "dropout"), 0.0)
        config = dataclasses.replace(
            config, rows=8, training=dataclasses.replace(config.training, **training), **changes
        )
    begin = time.perf_counter()
    understand = train_understanding(train, validation, workdir / name, config)
    seconds = time.perf_counter() - begin
    understand.threshold = 0.0
    if name == "clinc150" and not _QUICK.value:
        understand.threshold = choose_threshold(*judge(understand, validation), IN_SCOPE)  # whatever part is scored
    understood = understand.understand_all([utterance.text for utterance in scored])
    figures = score_frames(
        [as_frame(utterance.call) for utterance in scored], [as_frame(one.call) for one in understood]
    )
    bayes = classify_by_bayes(train, scored)
    in_scope = [(guess, one.name) for guess, one in zip(bayes, scored, strict=True) if one.name != OUT_OF_SCOPE]
    return figures | {
        "parseable": sum(can_be_parsed(one.call) for one in understood) / len(understood),
        "bayes": sum(guess == name for guess, name in in_scope) / len(in_scope),
        "requests": len(scored),
        "seconds": round(seconds),
    }


def without_nan(results):
    """The same with None for what is a share of nothing, which JSON does not know."""
    return {
        name: {measure: None if value != value else round(value, 4) for measure, value in figures.items()}
        for name, figures in results.items()
    }


def draw(results, path):
    """A bar for each figure that has a goal, and a line at the goal."""
    import matplotlib.pyplot as plt

    bars = [(name, measure, results[name][measure], goal) for name in results for measure, goal in GOALS[name].items()]
    figure, axes = plt.subplots(figsize=(9, 4), layout="constrained")
    axes.bar(range(len(bars)), [value for *_, value, _ in bars], color="#4c78a8", label="reached")
    for place, (*_, goal) in enumerate(bars):
        axes.plot([place - 0.4, place + 0.4], [goal, goal], color="black", label="goal" if place == 0 else None)
    axes.set_xticks(
        range(len(bars)), [f"{name}\n{measure.replace('_', ' ')}" for name, measure, *_ in bars], fontsize=7
    )
    axes.set_ylim(0, 1.02)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)


def main(argv):
    del argv
    logging.getLogger("tf_llm").setLevel(logging.ERROR)
    folder, results = Path(_DATA.value) / "dialogue", {}
    with tempfile.TemporaryDirectory() as temporary:
        try:
            for name in _ONLY.value[:1] if _QUICK.value else _ONLY.value:
                results[name] = measure(name, folder, Path(_WORKDIR.value or temporary))
        except UserError as error:
            print(f"could not run: {error}; name the folder of test data with --data")
            sys.exit(2)
    columns = ("intent_accuracy", "slot_f1", "exact_frame", "in_scope_accuracy", "out_of_scope_recall", "parseable")
    print(f"{'':10}{'requests':>9}{'trained':>9}" + "".join(f"{column.replace('_', ' '):>21}" for column in columns))
    for name, figures in results.items():
        row = "".join(f"{figures[column]:21.3f}" for column in columns)
        print(f"{name:10}{figures['requests']:9}{figures['seconds']:7} s{row}")
        print(f"{'':10}naive Bayes, intents in scope: {figures['bayes']:.3f}")
    if _PICTURE.value:
        draw(results, _PICTURE.value)
    if _QUICK.value:
        (figures,) = results.values()
        value, goal = figures["exact_frame"], QUICK_GOAL
        holds = value >= goal and figures["parseable"] == 1.0
    else:
        shares = [results[name][measure] / goal for name in results for measure, goal in GOALS[name].items()]
        value, goal, holds = min(shares), 1.0, min(shares) >= 1.0
    unit = "exact frames" if _QUICK.value else "the figure that is farthest from its goal, divided by it"
    result = {"name": "assistant_quality", "value": round(value, 4), "goal": goal, "unit": unit, "holds": holds}
    print(json.dumps(result | {"figures": without_nan(results)}))
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    app.run(main)
