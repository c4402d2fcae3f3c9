"""What exported generators say where there is no tf_llm, for export_equals_python.py to compare with.

    python -I examples/benchmarks/peers/saved_model.py job.json

The job is {"prompts": texts, "texts": what is to be scored behind the first of them, "folders": {name: the folder of a
SavedModel}, "with_text": whether tensorflow_text is needed}; texts are UTF-8, or any other bytes, in base64. The last
line of what is printed is JSON: for each name the `texts` of `generate` in base64, the `log_probabilities` of `score`
and the `vectors` of `embed`, of the prompts.

With -I Python reads no PYTHONPATH and no folder of the user; besides, tf_llm and Keras are refused to whoever imports
them, but for tensorflow_text, which cannot do without Keras.
"""

import importlib.abc
import importlib.machinery
import sys


class Refuse(importlib.abc.Loader):
    """Finds packages, as TensorFlow wants, and refuses to load them."""

    def __init__(self, *names):
        self.names = names

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            spec = importlib.machinery.PathFinder.find_spec(name, path)
            if spec is not None:
                spec.loader = self
            return spec

    def exec_module(self, module):
        raise ImportError(f"{module.__name__} is refused here")


refuse = Refuse("tf_llm", "keras")
sys.meta_path.insert(0, refuse)

import base64
import json
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import tensorflow as tf


def main():
    job = json.loads(Path(sys.argv[1]).read_text())
    if job["with_text"]:
        refuse.names = ("tf_llm",)
        import tensorflow_text  # noqa: F401, for the ops that come with it
    prompts, scored = (tf.constant([base64.b64decode(each) for each in job[name]]) for name in ("prompts", "texts"))
    found = {}
    for name, folder in job["folders"].items():
        signatures = tf.saved_model.load(folder).signatures
        texts = signatures["serving_default"](prompts)["texts"]
        scores = signatures["score"](prompts=prompts[: len(scored)], texts=scored)["log_probabilities"]
        found[name] = {
            "texts": [base64.b64encode(text).decode() for text in texts.numpy()],
            "log_probabilities": scores.numpy().tolist(),
            "vectors": signatures["embed"](prompts)["vectors"].numpy().tolist(),
        }
    assert not {*refuse.names} & {*sys.modules}, "they were imported all the same"
    print(json.dumps(found))


if __name__ == "__main__":
    main()
