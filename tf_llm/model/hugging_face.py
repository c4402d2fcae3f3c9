"""T5 as Hugging Face's transformers writes it (Raffel et al. 2020; T5 1.1 and Flan-T5 too): its settings and arrays.

Nothing here knows files. One table pairs our weights with theirs and is read in both directions:

    ours                                 theirs
    kernel [in, out]                     weight [out, in]
    one kernel for keys and values       two weights, k and v
    gate, widen                          wi_0, wi_1
    table, scale                         the same

T5 1.0 has one table for all words, and divides what the output is given by √D; 1.1 has a table of its own for the
output, and divides by nothing. Their settings tell the two apart by `tie_word_embeddings`; since release 5 that is
always true when a model is saved, and `scale_decoder_outputs` tells.

Glossary: V vocabulary, D width, H heads, K head size, F feed-forward width, R buckets of distances.
"""

import numpy as np
from keras import ops

from tf_llm.contracts import END_ID, PAD_ID, START_ID, UserError
from tf_llm.model.config import ModelConfig

# Our field -> (theirs, what T5 has where a file says nothing).
SIZES = {
    "vocabulary_size": ("vocab_size", 32_128),
    "d_model": ("d_model", 512),
    "d_head": ("d_kv", 64),
    "d_ff": ("d_ff", 2_048),
    "num_layers": ("num_layers", 6),
    "num_heads": ("num_heads", 8),
    "relative_buckets": ("relative_attention_num_buckets", 32),
    "relative_distance": ("relative_attention_max_distance", 128),
}
LARGEST = 10_000_000  # more than any size of a model that was ever published: a guard against files made to do harm
# Theirs -> ours. Ours is the tanh form of GELU: their "gelu_new", and what they mean by "gated-gelu".
ACTIVATIONS = {
    "relu": "relu",
    "gelu_new": "gelu",
    "gated-gelu": "gated_gelu",
    "gated-gelu_new": "gated_gelu",
    "gated-silu": "swiglu",
}
DROPOUTS = ("embedding_dropout", "attention_dropout", "feed_forward_dropout", "residual_dropout", "output_dropout")
# What all models of this kind have in common.
T5 = {
    "architecture": "transformer",
    "context": "sequence",
    "short_convolution": 0,
    "positions": "relative",
    "norm": "rms",
    "norm_place": "first",
    "input_norm": "none",
    "feed_forward_bias": False,
    "attention_scale": False,
    "embedding_scale": False,
    "output_bias": False,
    "output_l2": 0.0,
}
TIED = {"embeddings": "all", "output_scale": True}  # T5 1.0
UNTIED = {"embeddings": "inputs", "output_scale": False}  # T5 1.1
# What has to hold in their settings, where they say anything of it.
EXPECTED = {
    "model_type": "t5",
    "is_encoder_decoder": True,
    "pad_token_id": PAD_ID,
    "eos_token_id": END_ID,
    "decoder_start_token_id": START_ID,
}

# === The table: our weight, the shape of theirs, theirs ===
# {s} is the stack, {i} the block, {f} the number of the block's feed-forward layer.
SELF, CROSS, FEED = (
    "{s}.block.{i}.layer.0.SelfAttention",
    "{s}.block.{i}.layer.1.EncDecAttention",
    "{s}.block.{i}.layer.{f}.DenseReluDense",
)
STACK = (
    ("{s}_relative_bias/table", "RH", "{s}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"),
    ("{s}_norm/scale", "D", "{s}.final_layer_norm.weight"),
)
SELF_ATTENTION = (
    ("{s}_{i}_attention_norm/scale", "D", "{s}.block.{i}.layer.0.layer_norm.weight"),
    ("{s}_{i}_attention/query/kernel", "AD", f"{SELF}.q.weight"),
    ("{s}_{i}_keys_values/projection/kernel", "AD", f"{SELF}.k.weight", f"{SELF}.v.weight"),
    ("{s}_{i}_attention/output/kernel", "DA", f"{SELF}.o.weight"),
)
CONTEXT_ATTENTION = (
    ("{s}_{i}_context_norm/scale", "D", "{s}.block.{i}.layer.1.layer_norm.weight"),
    ("{s}_{i}_context_attention/query/kernel", "AD", f"{CROSS}.q.weight"),
    ("{s}_{i}_context_keys_values/projection/kernel", "AD", f"{CROSS}.k.weight", f"{CROSS}.v.weight"),
    ("{s}_{i}_context_attention/output/kernel", "DA", f"{CROSS}.o.weight"),
)
FEED_FORWARD_NORM = (("{s}_{i}_feed_forward_norm/scale", "D", "{s}.block.{i}.layer.{f}.layer_norm.weight"),)
PLAIN = (("{s}_{i}_feed_forward/widen/kernel", "FD", f"{FEED}.wi.weight"),)
GATED = (
    ("{s}_{i}_feed_forward/gate/kernel", "FD", f"{FEED}.wi_0.weight"),
    ("{s}_{i}_feed_forward/widen/kernel", "FD", f"{FEED}.wi_1.weight"),
)
NARROW = (("{s}_{i}_feed_forward/narrow/kernel", "DF", f"{FEED}.wo.weight"),)
TABLE = (("table/embeddings", "VD", "shared.weight"),)
HEAD = (("output_embedding/kernel", "VD", "lm_head.weight"),)

# Other names under which files may hold the table, and what the first files of T5 1.0 hold and no model uses.
TABLE_ALIASES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
UNUSED = ("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",)


def config_from_hugging_face(settings, source_length, target_length):
    """The `ModelConfig` of a T5's `config.json`.

    Args:
        settings: the dictionary that the file holds. Fields that shape no T5 are passed over.
        source_length, target_length: S and T, which T5 leaves open.

    Raises:
        UserError: it is no T5, or one that the layers here cannot be; with the reasons.

    >>> config_from_hugging_face({"model_type": "t5", "feed_forward_proj": "relu"}, 512, 128).head_size
    64
    """
    faults = [
        f"{name} is {settings.get(name)!r} in place of {expected!r}"
        for name, expected in EXPECTED.items()
        if settings.get(name) not in (expected, [expected], *([] if name == "model_type" else [None]))
    ]
    if settings.get("quantization_config"):
        faults.append("its weights are quantised")
    activation = settings.get("feed_forward_proj", "relu")
    if activation not in sorted(ACTIVATIONS):  # a list, since it may be anything
        faults.append(f"feed_forward_proj is {activation!r} in place of one of {sorted(ACTIVATIONS)}")
    sizes = {ours: settings.get(theirs, usual) for ours, (theirs, usual) in SIZES.items()}
    sizes["num_decoder_layers"] = settings.get("num_decoder_layers") or sizes["num_layers"]
    for name, size in sizes.items():
        if type(size) is not int or not 0 < size <= LARGEST:
            faults.append(f"{SIZES.get(name, (name,))[0]} is {size!r} in place of a size")
    dropout, epsilon = settings.get("dropout_rate", 0.1), settings.get("layer_norm_epsilon", 1e-6)
    faults += [f"{number!r} is no number" for number in (dropout, epsilon) if type(number) not in (int, float)]
    if not faults:
        tied = settings.get("scale_decoder_outputs", settings.get("tie_word_embeddings") is not False)
        try:
            return ModelConfig(
                **T5,
                **(TIED if tied else UNTIED),
                **sizes,
                **dict.fromkeys(DROPOUTS, dropout),
                activation=ACTIVATIONS[activation],
                norm_epsilon=epsilon,
                source_length=source_length,
                target_length=target_length,
            )
        except ValueError as error:
            faults.append(str(error))
    raise UserError(
        f"expected the settings of a T5 (model_type 't5'). Received: {'; '.join(faults)}. Choose another model, such "
        "as google-t5/t5-small or google/flan-t5-small"
    )


def config_to_hugging_face(config):
    """What transformers needs to know of a `ModelConfig`: the contents of `config.json`.

    Raises:
        UserError: T5 cannot be such a model; with the reasons.

    >>> config_to_hugging_face(ModelConfig())  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    tf_llm.contracts.UserError: expected a model that T5 can be. Received: context is 'vector' in place of ...
    """
    faults = [
        f"{name} is {getattr(config, name)!r} in place of {expected!r}"
        for name, expected in T5.items()
        if getattr(config, name) != expected
    ]
    if config.key_value_heads != config.num_heads:
        faults.append("several heads share keys")
    if {name: getattr(config, name) for name in TIED} not in (TIED, UNTIED):
        faults.append("embeddings and output_scale go together otherwise: 'all' and True, or 'inputs' and False")
    if len({getattr(config, name) for name in DROPOUTS}) > 1:
        faults.append("its dropouts are not all the same, and T5 has one")
    if faults:
        raise UserError(
            f"expected a model that T5 can be. Received: {'; '.join(faults)}. Begin with build_size('t5_v1_1_small')"
        )
    theirs = {ours: name for name, ours in reversed(ACTIVATIONS.items())}
    sizes = {theirs: getattr(config, "head_size" if ours == "d_head" else ours) for ours, (theirs, _) in SIZES.items()}
    return {
        "architectures": ["T5ForConditionalGeneration"],
        **EXPECTED,
        **sizes,
        "num_decoder_layers": config.decoder_layers,
        "feed_forward_proj": theirs[config.activation],
        "is_gated_act": config.activation in ("gated_gelu", "swiglu"),
        "dropout_rate": config.residual_dropout,
        "layer_norm_epsilon": config.norm_epsilon,
        "tie_word_embeddings": config.embeddings == "all",
        "use_cache": True,
    }


def pair_weights(config):
    """Yields (the path of our weight, the names of theirs, the shape of each of these) for all weights of a T5."""
    sizes = {
        "V": config.vocabulary_size,
        "D": config.d_model,
        "A": config.num_heads * config.head_size,
        "F": config.d_ff,
        "H": config.num_heads,
        "R": config.relative_buckets,
    }

    def fill(rows, **numbers):
        for ours, letters, *theirs in rows:
            shape = tuple(sizes[letter] for letter in letters)
            yield ours.format(**numbers), [name.format(**numbers) for name in theirs], shape

    feed_forward = FEED_FORWARD_NORM + (GATED if config.activation in ("gated_gelu", "swiglu") else PLAIN) + NARROW
    yield from fill(TABLE)
    for stack, num_blocks, parts, feed_forward_layer in (
        ("encoder", config.num_layers, SELF_ATTENTION, 1),
        ("decoder", config.decoder_layers, SELF_ATTENTION + CONTEXT_ATTENTION, 2),
    ):
        yield from fill(STACK, s=stack)
        for i in range(num_blocks):
            yield from fill(parts + feed_forward, s=stack, i=i, f=feed_forward_layer)
    if config.embeddings != "all":
        yield from fill(HEAD)


def list_tensors(config):
    """{name: shape} of the tensors that transformers has for a `ModelConfig`, no tensor twice."""
    return {name: shape for _, names, shape in pair_weights(config) for name in names}


def check_arrays(config, arrays):
    """Whether arrays are all that a model needs, and nothing else.

    Args:
        config: a `ModelConfig` that `config_to_hugging_face` accepts.
        arrays: {name: array}, of which only shapes are looked at.

    Raises:
        UserError: names are missing, unexpected or of another shape; all of them, in one error.
    """
    aliases = [*TABLE_ALIASES, *(["lm_head.weight"] if config.embeddings == "all" else [])]
    expected = list_tensors(config)
    received = {name: tuple(array.shape) for name, array in arrays.items() if name not in UNUSED}
    table = expected["shared.weight"]
    if "shared.weight" not in received and (alias := _find_table(arrays)):
        received["shared.weight"] = received[alias]
    known = expected | dict.fromkeys(aliases, table)
    missing = [f"{name} {list(shape)}" for name, shape in expected.items() if name not in received]
    unexpected = [f"{name} {list(shape)}" for name, shape in received.items() if name not in known]
    misshaped = [
        f"{name} {list(shape)} in place of {list(known[name])}"
        for name, shape in received.items()
        if name in known and shape != known[name]
    ]
    faults = [
        f"{len(names)} {fault}: {', '.join(names[:10])}{', …' if len(names) > 10 else ''}"
        for fault, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", misshaped))
        if names
    ]
    if faults:
        raise UserError(
            f"expected the {len(expected)} tensors of a T5 of these settings. Received: {'; '.join(faults)}. Take "
            "settings and tensors from the same model"
        )


def load_arrays(model, arrays):
    """Gives a model the weights that transformers calls otherwise, one after the other.

    Args:
        model: an `EncoderDecoder` whose config `config_to_hugging_face` accepts.
        arrays: {name: array}; whatever has a shape and becomes an array by `numpy.asarray`, be it late.
            The weights keep their dtype.

    Raises:
        UserError: see `check_arrays`; or an array that should be another one's copy is not.
    """
    config_to_hugging_face(model.config)  # for what it refuses
    check_arrays(model.config, arrays)
    table = "shared.weight" if "shared.weight" in arrays else _find_table(arrays)
    copies = [*TABLE_ALIASES, *(["lm_head.weight"] if model.config.embeddings == "all" else [])]
    for name in copies:
        if name in arrays and name != table and not np.array_equal(np.asarray(arrays[name]), np.asarray(arrays[table])):
            raise UserError(
                f"expected {name} to be the same as {table}, which it stands for in a T5 of these settings. Received: "
                "other numbers. Set tie_word_embeddings in config.json to what the model was trained with"
            )
    variables = {variable.path: variable for variable in model.variables}
    for path, names, _ in pair_weights(model.config):
        parts = [np.asarray(arrays[table if name == "shared.weight" else name]) for name in names]
        if path.endswith("kernel"):
            parts = [np.concatenate(parts).T]  # [out, in] each -> [in, the sum of out]
        variables[path].assign(ops.cast(ops.convert_to_tensor(parts[0]), variables[path].dtype))


def export_arrays(model, names=None):
    """The weights of a model under their names in transformers: {name: array}, in the dtype of the weights.

    Args:
        model: an `EncoderDecoder` whose config `config_to_hugging_face` accepts.
        names: only these; None is all of `list_tensors`.

    Raises:
        UserError: T5 cannot be such a model.
    """
    config_to_hugging_face(model.config)  # for what it refuses
    variables = {variable.path: variable for variable in model.variables}
    arrays = {}
    for path, theirs, _ in pair_weights(model.config):
        if names is not None and not set(theirs) & set(names):
            continue
        array = ops.convert_to_numpy(variables[path].value)
        parts = np.split(array.T, len(theirs)) if path.endswith("kernel") else [array]
        arrays |= {name: np.ascontiguousarray(part) for name, part in zip(theirs, parts, strict=True)}
    return {name: array for name, array in arrays.items() if names is None or name in names}


def _find_table(arrays):
    return next((alias for alias in TABLE_ALIASES if alias in arrays), None)
