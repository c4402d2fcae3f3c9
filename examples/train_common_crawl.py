"""The main job, end to end: web pages in, a trained encoder–decoder out, and text from it.

    python examples/train_common_crawl.py                                # recipe `article`: 4 minutes on 2 cores
    python examples/train_common_crawl.py --recipe=best --workdir=runs/best
    python examples/train_common_crawl.py --source=warc --warc='crawl/*.warc.gz' --workdir=runs/crawl

Pages come from Common Crawl where it answers, else from the documentation that is installed with this Python. At the
end you see the validation loss beside a unigram and a bigram baseline, three continuations, and where report.md lies.
The same command goes on where a run was interrupted. `--dry_run` says beforehand what it would take, `--helpfull` lists
every setting. A part of a corpus trains while the next is prepared with its tokenizer; then training goes on with both:

    python examples/train_common_crawl.py --data=data/1 --data=data/2 --allow_changes
"""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow greets at length when it is imported
import keras
from absl import flags

import tf_llm
import tf_llm.flags
from tf_llm.banner import describe_run
from tf_llm.evaluation.report import format_table, tabulate_models

WORKDIR = flags.DEFINE_string("workdir", "runs/article", "The folder of the run: shards, checkpoints, report.")
DATA = flags.DEFINE_multi_string("data", [], "Token shards, by default the run's own; several folders are one corpus.")
STRATEGY = flags.DEFINE_string("strategy", "auto", "Devices: auto, cpu, gpu, mirrored, workers or tpu.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Say what would be done, memory and time; read, write, train nothing.")
ALLOW_CHANGES = flags.DEFINE_bool("allow_changes", False, "Go on with a run whose settings or shards were others.")
tf_llm.flags.define_flags()


def main():
    run, origins = tf_llm.flags.build_run(), tf_llm.flags.find_origins()
    workdir = Path(WORKDIR.value)
    data = [Path(folder) for folder in DATA.value] or [workdir / "data"]
    if DRY_RUN.value:
        print(describe_run(run, tf_llm.strategy(STRATEGY.value), workdir, " + ".join(map(str, data)), origins))
        return

    # Pages become documents, documents become shards of token ids.
    is_chief = tf_llm.is_chief(STRATEGY.value)  # of several workers the first prepares and writes, for all
    if len(data) > 1:  # parts that were prepared before, with one tokenizer
        shards = tf_llm.join_shards([tf_llm.load_shards(folder) for folder in data])
    else:
        shards = tf_llm.prepare(tf_llm.flags.build_source(), run, data[0], wait=not is_chief)

    # The model, compiled as in the article.
    keras.utils.set_random_seed(run.training.seed)
    strategy = tf_llm.strategy(STRATEGY.value)
    with strategy.scope():
        model = tf_llm.build_model(run.model, tf_llm.choose_precision(run.training.precision))
        model.compile(
            optimizer=tf_llm.build_optimizer(run.training),
            loss=tf_llm.build_loss(run.training),  # SparseCategoricalCrossentropy, smoothed where the recipe says so
            weighted_metrics=[keras.metrics.SparseCategoricalAccuracy("accuracy")],
        )
        model.summary()
        summary = tf_llm.train(model, shards, run, workdir, origins, ALLOW_CHANGES.value)

    print(format_table(*tabulate_models(summary)))
    print(f"\nThe report, with a plot, three continuations and what to try next: {workdir}/report.md")


if __name__ == "__main__":
    tf_llm.flags.launch(main)
