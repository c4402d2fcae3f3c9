"""Pages to token shards on Apache Spark: the first half of the main job, on as many machines as there are.

    python examples/prepare_on_spark.py --master='local[2]'        # this machine, two cores: a minute, to try it
    python examples/prepare_on_spark.py --master=spark://host:7077 --data=/shared/data --source=warc \
        --warc='/shared/crawl/*.warc.gz' --executor_memory=4g
    spark-submit --master yarn examples/prepare_on_spark.py --data=/shared/data      # or k8s://https://host:443

Every machine needs `pip install "tf_llm[spark]"`, Java 17, and --data and the files of the source under the same path:
a shared file system. You see how many pages are done and how fast, and at the end what became of them; the shards are
those that one machine makes, byte for byte. What was interrupted goes on with the same command. Then train on them:

    python examples/train_common_crawl.py --data=/shared/data      # with the same recipe and source
"""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow greets at length when it is imported
from absl import flags

import tf_llm
import tf_llm.flags
from tf_llm.prepare.spark import Spark

MASTER = flags.DEFINE_string("master", None, "Spark's master; by default that of spark-submit, or all cores here.")
WORKDIR = flags.DEFINE_string("workdir", "runs/article", "The folder of the run, for the shards.")
DATA = flags.DEFINE_string("data", None, "The folder of the token shards; by default the run's own.")
EXECUTOR_MEMORY = flags.DEFINE_string("executor_memory", None, "Of each of Spark's Java processes; 1g by default.")
tf_llm.flags.define_flags()


def main():
    run = tf_llm.flags.build_run()
    settings = {"spark.executor.memory": EXECUTOR_MEMORY.value} if EXECUTOR_MEMORY.value else {}
    driver = Spark(MASTER.value, limits=run.workers, settings=settings)
    shards = tf_llm.prepare(tf_llm.flags.build_source(), run, DATA.value or Path(WORKDIR.value, "data"), driver=driver)
    for name, count in (shards.about["steps"] | shards.about["rejections"]).items():
        print(f"{count:>15,}  {name}")
    print(f"{shards.train.tokens:>15,}  tokens to train on, of {shards.train.pages:,} pages, in {shards.folder}")


if __name__ == "__main__":
    tf_llm.flags.launch(main)
