"""One contestant of training_speed.py: builds an encoder–decoder and trains it by the step, as it is told to.

    python examples/benchmarks/peers/training_steps.py hugging_face --sizes='{"layers": 4, "d_model": 256, …}'

Once it has built its model and taken its first steps it says who it is in a line of JSON, and then answers each line:

    step       one training step; the seconds it took
    peak       a bfloat16 matrix product; its operations a second, in bursts of a tenth of a second
    flops      floating-point operations in the matrix products of a step, forward and backward
    breakdown  five more steps under TensorFlow's profiler; {kind of operation: its share of the time of all of them}

A new contestant is a function of the sizes and of the batch that returns (a step, its parameters, its settings), and a
line in CONTESTANTS.
"""

import collections
import dataclasses
import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from absl import app, flags

WARM_UP, THREADS = 3, 2
SIZE = 2_048  # of the matrices whose product is the peak
RATE, DROPOUT = 1e-4, 0.1
PLACES = ("embedding", "attention", "feed_forward", "residual", "output")  # where a `ModelConfig` has dropout
_SIZES = flags.DEFINE_string("sizes", None, "JSON: what training_speed.py wants built.", required=True)

# What the operations of a TensorFlow graph have to do with; the first kind whose words are in a name takes it.
KINDS = {
    "matrix products": ("MatMul",),
    "random words of dropout": ("RandomUniform",),
    "softmax, loss, accuracy": ("Softmax", "SparseSoftmax", "ArgMax", "TensorScatter"),
    "optimiser": ("ResourceApply", "AssignAdd", "AssignSub", "L2Loss"),
    "copies": ("Transpose", "Concat", "Split", "Tile", "StridedSlice", "Gather", "UnsortedSegment"),
    "conversions of type": ("Cast",),
    "sums": ("Sum", "Mean", "BiasAddGrad"),
}


def size_model(sizes):
    """The recipe `transformer` in these sizes: a `ModelConfig`."""
    from tf_llm import recipes

    return dataclasses.replace(
        recipes.transformer().model,
        vocabulary_size=sizes["vocabulary"],
        source_length=sizes["length"],
        target_length=sizes["length"],
        num_layers=sizes["layers"],
        d_model=sizes["d_model"],
        num_heads=sizes["heads"],
        d_ff=sizes["d_ff"],
    )


def count_step_flops(sizes):
    """Floating-point operations in the matrix products of a step."""
    from tf_llm.training.costs import count_flops

    return sizes["batch"] * sum(count_flops(size_model(sizes)).values())


def build_tf_llm(sizes, source, target):
    """The step of the trainer here, with the recipe `transformer` in these sizes, dropout in `sizes["places"]`."""
    import keras
    import tensorflow as tf

    from tf_llm import recipes
    from tf_llm.contracts import DECODER_IDS, SOURCE_IDS
    from tf_llm.model.encoder_decoder import build_model
    from tf_llm.training.distribution import strategy
    from tf_llm.training.losses import build_loss
    from tf_llm.training.optimizers import build_optimizer
    from tf_llm.training.step import TrainingStep

    limit_threads(tf)
    dropout = {f"{place}_dropout": DROPOUT if place in sizes["places"] else 0.0 for place in PLACES}
    config = dataclasses.replace(size_model(sizes), **dropout)
    changes = {"optimizer": "adam", "learning_rate": RATE, "label_smoothing": 0.0, "batch_size": sizes["batch"]}
    training = dataclasses.replace(recipes.transformer().training, **changes)
    keras.utils.set_random_seed(0)
    chosen = strategy("cpu")
    with chosen.scope():
        model = build_model(config, "mixed_bfloat16")
        model.compile(build_optimizer(training), build_loss(training))
        step = TrainingStep(model, chosen, training)
    decoder_ids = np.pad(target, ((0, 0), (1, 0)))[:, :-1]
    features = {SOURCE_IDS: tf.constant(source), DECODER_IDS: tf.constant(decoder_ids)}
    batch, limit = (features, tf.constant(target), tf.ones(target.shape)), tf.constant(np.inf, tf.float32)
    settings = f"recipe transformer, TrainingStep, mixed_bfloat16, TensorFlow {tf.__version__}"
    return lambda: step.train(batch, limit).numpy(), model.count_params(), settings


def build_keras_hub_t5(sizes, source, target):
    """KerasHub's T5 backbone with its table as the output, in Keras's own training step."""
    import keras
    import keras_hub

    backbone = keras_hub.models.T5Backbone(
        vocabulary_size=sizes["vocabulary"],
        num_layers=sizes["layers"],
        num_heads=sizes["heads"],
        hidden_dim=sizes["d_model"],
        intermediate_dim=sizes["d_ff"],
        key_value_dim=sizes["d_model"] // sizes["heads"],
        dropout=DROPOUT,
        activation="relu",
        use_gated_activation=False,
        tie_embedding_weights=True,
    )
    logits = backbone.token_embedding(backbone.output["decoder_sequence_output"], reverse=True)
    batch = {"encoder_token_ids": source, "decoder_token_ids": target}
    batch |= {f"{side}_padding_mask": np.ones_like(source) for side in ("encoder", "decoder")}
    return train_keras(keras, backbone.input, logits, batch, target, f"KerasHub {keras_hub.__version__}, T5Backbone")


def build_keras_hub(sizes, source, target):
    """KerasHub's TransformerEncoder and TransformerDecoder, norms first, with the table as the output."""
    import keras
    import keras_hub

    ids = [keras.Input((sizes["length"],), dtype="int32", name=name) for name in ("source", "target")]
    embedding = keras_hub.layers.TokenAndPositionEmbedding(sizes["vocabulary"], sizes["length"], sizes["d_model"])
    settings = {"dropout": DROPOUT, "normalize_first": True}
    context, hidden = (embedding(each) for each in ids)
    for _ in range(sizes["layers"]):
        context = keras_hub.layers.TransformerEncoder(sizes["d_ff"], sizes["heads"], **settings)(context)
    for _ in range(sizes["layers"]):
        hidden = keras_hub.layers.TransformerDecoder(sizes["d_ff"], sizes["heads"], **settings)(hidden, context)
    logits = embedding.token_embedding(hidden, reverse=True)
    name = f"KerasHub {keras_hub.__version__}, TransformerEncoder and TransformerDecoder"
    return train_keras(keras, ids, logits, [source, target], target, name)


def train_keras(keras, inputs, logits, batch, target, name):
    """What a user of Keras writes: `compile` and a training step of its own."""
    logits = keras.layers.Activation("linear", dtype="float32")(logits)
    model = keras.Model(inputs, logits)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(RATE), loss, metrics=["accuracy"], jit_compile=False)
    settings = f"{name}, train_on_batch, mixed_bfloat16, Keras {keras.__version__} on {keras.backend.backend()}"
    return lambda: model.train_on_batch(batch, target), model.count_params(), settings


def build_hugging_face(sizes, source, target):
    """T5 of transformers, in PyTorch, bfloat16 by autocast; Adam as one fused kernel, which is its fastest."""
    import torch
    import transformers

    torch.manual_seed(0)
    torch.set_num_threads(THREADS)
    config = transformers.T5Config(
        vocab_size=sizes["vocabulary"],
        d_model=sizes["d_model"],
        d_kv=sizes["d_model"] // sizes["heads"],
        d_ff=sizes["d_ff"],
        num_layers=sizes["layers"],
        num_heads=sizes["heads"],
        dropout_rate=DROPOUT,
        decoder_start_token_id=0,
    )
    model = transformers.T5ForConditionalGeneration(config).train()
    optimizer = torch.optim.Adam(model.parameters(), RATE, fused=True)
    source, target = torch.tensor(source).long(), torch.tensor(target).long()

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=source, labels=target).loss
        loss.backward()
        optimizer.step()
        return loss.item()

    settings = f"transformers {transformers.__version__}, T5, autocast to bfloat16, PyTorch {torch.__version__}"
    return step, sum(weight.numel() for weight in model.parameters()), settings


CONTESTANTS = {
    "tf_llm": build_tf_llm,
    "keras_hub": build_keras_hub,
    "keras_hub_t5": build_keras_hub_t5,
    "hugging_face": build_hugging_face,
}


def limit_threads(tf):
    """As many threads as PyTorch gets: TensorFlow counts those within an operation and those for several apart."""
    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    tf.config.threading.set_inter_op_parallelism_threads(THREADS)


def measure_peak(name):
    """Operations a second of a large product in bfloat16, by the framework of a contestant."""
    if name != "hugging_face":
        from tf_llm.training.devices import measure_matmul_peak

        return measure_matmul_peak("bfloat16", seconds=0.1, size=SIZE)
    import torch

    matrix, best = torch.randn(SIZE, SIZE, dtype=torch.bfloat16), 0.0
    for _ in range(3):
        begin = time.perf_counter()
        matrix @ matrix
        best = max(best, 2 * SIZE**3 / (time.perf_counter() - begin))
    return best


def break_down(step):
    """{kind of operation: its share of the time of all of them} over five steps."""
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            for _ in range(5):
                step()
        (path,) = Path(folder).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(path.read_bytes())
    totals = collections.Counter()
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                node, _, operation = name.rpartition(":")
                if not node or "::" in name or not operation.strip("_").isalnum():
                    continue  # not an operation of the graph
                found = (kind for kind, words in KINDS.items() if any(word in operation for word in words))
                totals[next(found, "element by element, and the rest")] += event.duration_ps
    return {kind: total / totals.total() for kind, total in totals.most_common()}


def main(argv):
    name, sizes = argv[1], json.loads(_SIZES.value)
    if name.startswith("keras_hub"):
        import keras
        import tensorflow as tf

        limit_threads(tf)
        keras.utils.set_random_seed(0)
        keras.config.set_dtype_policy("mixed_bfloat16")
    draw = np.random.default_rng(0)
    source, target = draw.integers(2, sizes["vocabulary"], (2, sizes["batch"], sizes["length"])).astype("int32")
    step, parameters, settings = CONTESTANTS[name](sizes, source, target)
    for _ in range(WARM_UP):
        step()
    print(json.dumps({"parameters": int(parameters), "settings": settings}), flush=True)
    for line in sys.stdin:
        if line.strip() == "peak":
            answer = measure_peak(name)
        elif line.strip() == "flops":
            answer = count_step_flops(sizes)
        elif line.strip() == "breakdown":
            answer = break_down(step)
        else:
            begin = time.perf_counter()
            step()
            answer = time.perf_counter() - begin
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    app.run(main)
