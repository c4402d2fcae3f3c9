"""What TensorFlow's compiler for TPUs makes of the trainer's own function, for tpu_compiles.py. No TPU is needed.

    .venv-tpu/bin/python examples/benchmarks/peers/tpu_hlo.py --recipes=best,t5

It runs in an environment of its own, since TensorFlow for TPUs ends at 2.20; tf_llm is read from this repository.
`TrainingStep.differentiate`, the forward and the backward pass of a step, is given the weights as tensors, which
`keras.StatelessScope` lends the model in place of its variables: XLA takes variables from a device alone, and there is
none. The optimiser's update, which writes to variables, is therefore not in it. Prints a line of JSON for each recipe:

    recipe, lines of HLO, products (dot and convolution), dynamic (dimensions whose size is not known before it runs)
"""

import os
import sys
from pathlib import Path

# One chip that is not there: asked about its surroundings, libtpu would wait for a cloud to answer.
os.environ |= {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import dataclasses
import json
import re

import keras
import tensorflow as tf
from absl import app, flags

import tf_llm
from tf_llm.recipes import RECIPES
from tf_llm.training.step import TrainingStep

_RECIPES = flags.DEFINE_list("recipes", list(RECIPES), "Which ones.")


def lower(run):
    """The HLO for a TPU of a recipe's forward and backward pass, as text."""
    strategy, config = tf_llm.strategy("cpu"), dataclasses.replace(run.training, accumulation=1)
    with strategy.scope():
        model = tf_llm.build_model(run.model, "mixed_bfloat16")
        model.compile(tf_llm.build_optimizer(config), tf_llm.build_loss(config))
    step = TrainingStep(model, strategy, config)
    variables = [*model.trainable_variables, *model.non_trainable_variables]

    @tf.function(jit_compile=True, autograph=False)
    def differentiate(values, features, targets, weights):
        with keras.StatelessScope(state_mapping=zip(variables, values, strict=True)) as scope:
            sums, *gradients = step.differentiate(features, targets, weights, step.count_tokens(weights))
            return sums, gradients, [scope.get_current_value(variable) for variable in model.non_trainable_variables]

    features = {name.name: tf.ones((config.batch_size, *name.shape[1:]), tf.int32) for name in model.inputs}
    targets = tf.ones((config.batch_size, run.model.target_length), tf.int32)
    values = [tf.convert_to_tensor(variable.value) for variable in variables]
    given = (values, features, targets, tf.ones_like(targets, tf.float32))
    return differentiate.experimental_get_compiler_ir(*given)(stage="hlo", platform_name="TPU")


def main(_):
    for name in _RECIPES.value:
        hlo = lower(RECIPES[name]())
        products = len(re.findall(r" (dot|convolution)\(", hlo))
        print(json.dumps({"recipe": name, "lines": hlo.count("\n"), "products": products, "dynamic": hlo.count("<=")}))


if __name__ == "__main__":
    app.run(main)
