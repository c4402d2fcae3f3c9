"""A generator as one SavedModel: strings in, strings out, the tokenizer inside. It runs where there is no tf_llm.

    import tensorflow as tf
    import tensorflow_text  # if pieces of words are the tokens; words and characters need no more than TensorFlow

    model = tf.saved_model.load("exports/first")
    model.generate(tf.constant(["The transformer architecture", "Keras"]))["texts"]    # string [2] -> string [2]

| signature                     | takes                               | gives                                      |
|-------------------------------|-------------------------------------|--------------------------------------------|
| `generate`, `serving_default` | `prompts` string [N]                | `texts` string [N]                         |
| `generate_with`               | `prompts`, and settings of the call | `texts` string [N]                         |
| `score`                       | `prompts`, `texts` string [N]       | `log_probabilities` float32 [N]: of texts, |
|                               |                                     | `token_log_probabilities` float32 [N, L],  |
|                               |                                     | `num_tokens` int32 [N]                     |
| `embed`                       | `texts` string [N]                  | `vectors` float32 [N, D], of length 1      |

How texts are said is settled by the `GenerationConfig` of the export. `generate_with` takes `max_new_tokens` int32, up
to that of the export, and where tokens are drawn `temperature` float32 and `seed` int64: each is one number for all
rows, [1], or one a row, [N], and has a default, which TensorFlow Serving and `model.generate_with(...)` know. After an
export with several beams there is no `generate_with`.

Glossary: N rows, L tokens of the longest text, D width.
"""

from pathlib import Path

import tensorflow as tf

from tf_llm.contracts import UserError
from tf_llm.decoding.graphs import TextGraph, check
from tf_llm.files import make_folder

PROMPTS, TEXTS = (tf.TensorSpec([None], tf.string, name) for name in ("prompts", "texts"))
SIGNATURES = ("generate", "generate_with", "score", "embed")
# What a call may set: name -> (dtype, least).
ASKED = {"max_new_tokens": (tf.int32, 1), "temperature": (tf.float32, 0.0), "seed": (tf.int64, 0)}


class ExportedGenerator(tf.Module):
    """A generator whose methods are graphs of strings, as `tf.saved_model.save` takes it.

    Args:
        generate: a `Generator`.
        config: a `GenerationConfig`.
    """

    def __init__(self, generate, config):
        super().__init__(name="generator")
        graph = TextGraph(generate, config)
        # What the graphs hold on to: TensorFlow saves what it finds in attributes, and nothing else.
        self.weights = [variable.value for variable in generate.model.variables]
        self.table = getattr(generate.tokenizer, "graph_table", None)
        if config.num_beams > 1:
            self.generate = draw_search(graph)
        else:
            self.generate_with = draw_draws(graph) if config.draws else draw_talk(graph)
            self.generate = draw(lambda prompts: self.generate_with(prompts), PROMPTS)  # the same graph
        self.score, self.embed = draw_score(graph), draw_embed(graph)


def export_generator(generate, folder, config=None, **settings):
    """Writes a generator as a SavedModel, whole or not at all.

    Args:
        generate: a `Generator`.
        folder: is made; it may exist if nothing is in it. TensorFlow Serving wants a number for its name, which is the
            version of the model: `exports/first/1`.
        config: a `GenerationConfig`; None is the generator's own.
        settings: fields of `GenerationConfig` that differ from it.

    Returns:
        The folder, a `Path`.

    Raises:
        UserError: the folder holds something, or cannot be written; or the tokenizer has no ops for a graph.
        ValueError: the settings ask for what a graph of one text a prompt cannot do.

    >>> export_generator(generate, "exports/first", max_new_tokens=32)                         # doctest: +SKIP
    >>> model = tf.saved_model.load("exports/first")                                           # doctest: +SKIP
    >>> model.generate_with(tf.constant(["Keras"]), temperature=tf.constant([0.2]))["texts"]   # doctest: +SKIP
    """
    config = (config or generate.config).with_settings(**settings)
    if config.num_return_sequences > 1:
        received = config.num_return_sequences
        raise ValueError(f"num_return_sequences is expected to be 1 in an export. Received: {received}")
    if not all(callable(getattr(generate.tokenizer, name, None)) for name in ("graph_encode", "graph_decode")):
        raise UserError(
            "expected a tokenizer with graph_encode and graph_decode, which work on string tensors. Received: "
            f"{type(generate.tokenizer).__name__}. Take one of words, characters or pieces, or give yours these two "
            "(contracts.py)"
        )
    with make_folder(folder) as partial:
        module = ExportedGenerator(generate, config)
        names = [name for name in SIGNATURES if hasattr(module, name)]
        signatures = {name: getattr(module, name) for name in names}
        tf.saved_model.save(module, str(partial), {"serving_default": module.generate, **signatures})
    return Path(folder)


# === Signatures: graphs whose inputs and outputs have names ===


def draw(function, *specs):
    """A function as one graph, for inputs of these `tf.TensorSpec`s."""
    return tf.function(function, input_signature=specs, autograph=False)


def draw_talk(graph):
    """`generate_with` where the likeliest is said."""
    limit = tf.constant([graph.limit])

    def generate_with(prompts, max_new_tokens=limit):
        demand("max_new_tokens", max_new_tokens, graph.limit)
        return {"texts": graph.say(prompts, max_new_tokens)}

    return draw(generate_with, PROMPTS, specify("max_new_tokens"))


def draw_draws(graph):
    """`generate_with` where tokens are drawn."""
    limit = tf.constant([graph.limit])
    usual = tf.constant([graph.config.temperature], tf.float32)
    usual_seed = tf.constant([graph.config.seed], tf.int64)

    def generate_with(prompts, max_new_tokens=limit, temperature=usual, seed=usual_seed):
        demand("max_new_tokens", max_new_tokens, graph.limit)
        demand("temperature", temperature)
        demand("seed", seed)
        halves = tf.cast(tf.stack([seed % 2**32, seed // 2**32], axis=1), tf.uint32)  # as `draws.split_seeds`
        return {"texts": graph.say(prompts, max_new_tokens, temperature=temperature, seeds=halves)}

    return draw(generate_with, PROMPTS, *map(specify, ASKED))


def draw_search(graph):
    """`generate` where a search is made."""
    return draw(lambda prompts: {"texts": graph.say(prompts)}, PROMPTS)


def draw_score(graph):
    """`score`: how likely the tokens of texts are behind their prompts."""

    def score(prompts, texts):
        found, counts = graph.score(prompts, texts)  # [N, L], [N]
        total = tf.reduce_sum(found, axis=1)
        return {"log_probabilities": total, "token_log_probabilities": found, "num_tokens": counts}

    return draw(score, PROMPTS, TEXTS)


def draw_embed(graph):
    """`embed`: the vectors of texts."""
    return draw(lambda texts: {"vectors": graph.embed(texts)}, TEXTS)


def specify(name):
    """What a graph is told of a setting that a call may bring: [1] or [N]."""
    return tf.TensorSpec([None], ASKED[name][0], name)


def demand(name, setting, most=None):
    """Refuses what no `GenerationConfig` would take, with an error of the graph."""
    dtype, least = ASKED[name]
    bounds = f"at least {least}" if most is None else f"in [{least}, {most}]"
    fits = tf.reduce_all((setting >= least) & (setting <= (dtype.max if most is None else most)))
    check(fits, f"{name} is expected to be {bounds}. Received:", setting)
