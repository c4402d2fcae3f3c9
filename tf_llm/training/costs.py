"""What a training step of an encoder–decoder costs: parameters, floating-point operations, bytes of memory.

Everything follows from the shapes of the weights and from how many positions of a row each of them meets, so one list
of them (`list_weights`) is all that is known of a model here. A model is an argument, a `ModelConfig`; none is built.

Glossary: B rows on one device at a time, S source length, T target length, C context length (1 for a vector, S for a
sequence), D width, H heads, G key/value heads, K head size, F feed-forward width, V vocabulary, N parameters.
"""

import dataclasses
import math

from tf_llm.contracts import UserError

PARTS = ("input_embedding", "position_embedding", "encoder", "decoder", "output_embedding")  # as in `model.summary()`
# Copies of the weights that an optimiser keeps. Muon and Adafactor are not that simple, see `count_state`.
STATE_COPIES = {
    "gradient_descent": 0,
    "sgd": 1,
    "adagrad": 1,
    "adam": 2,
    "adam_short_memory": 2,
    "adam_transformer": 2,
    "adamw": 2,
    "adamw_rms": 2,
    "adafactor": 1,
    "lion": 1,
    "muon": 1,
}
FLOAT32 = 4  # bytes
COMPUTE_BYTES = {"float32": 4, "mixed_bfloat16": 2, "mixed_float16": 2}  # of Keras's dtype policies, for training
LANES = 128  # numbers that a TPU handles side by side: shorter rows take as much room
GATED = ("gated_gelu", "swiglu")


@dataclasses.dataclass(frozen=True)
class Weight:
    """One variable of a model."""

    part: str  # one of PARTS
    shape: tuple  # as Keras stores it
    positions: int = 0  # of one row that are multiplied by it as by a matrix; 0 where it is looked up, added or a scale
    shared: bool = False  # whether it is another part's weight, used once more

    @property
    def size(self):
        """Numbers in it."""
        return math.prod(self.shape)


def list_weights(config):
    """[Weight] of the model of a `ModelConfig`, in the order of the article's five parts.

    >>> from tf_llm.model.sizes import build_size
    >>> [weight.shape for weight in list_weights(build_size("t5_small", num_layers=1)) if weight.part == "encoder"]
    [(32, 8), (512,), (512, 512), (512, 1024), (512, 512), (512,), (512, 2048), (2048, 512), (512,)]
    """
    source, target, width = config.source_length, config.target_length, config.d_model
    weights = []
    for size in [config.vocabulary_size, config.said_vocabulary_size][: 1 + (config.embeddings == "none")]:
        table = Weight("input_embedding", (size, width))
        weights += [table, *_list_norm(config.input_norm, table.part, width)]
    if config.positions == "learned":
        weights.append(Weight("position_embedding", (max(source, target), width)))
    for part, layers, length in (("encoder", config.num_layers, source), ("decoder", config.decoder_layers, target)):
        if config.positions == "relative":
            weights.append(Weight(part, (config.relative_buckets, config.num_heads)))
        weights += _list_block(config, part, length) * layers
        weights += _list_norm(config.norm, part, width) if config.norm_place == "first" else []
    is_tied = config.embeddings == "all"
    words = config.said_vocabulary_size
    weights.append(Weight("output_embedding", (width, words), target, shared=is_tied))
    return weights + [Weight("output_embedding", (words,))] * config.output_bias


def _list_block(config, part, length):
    width, norm = config.d_model, _list_norm(config.norm, part, config.d_model)
    weights = list(norm)
    if config.architecture == "transformer":
        weights += _list_attention(config, part, length, length)
        if config.short_convolution:
            weights.append(Weight(part, (config.short_convolution - 1, width)))
        wide = [Weight(part, (width, config.d_ff), length), *[Weight(part, (config.d_ff,))] * config.feed_forward_bias]
        weights += norm + wide * (1 + (config.activation in GATED)) + [Weight(part, (config.d_ff, width), length)]
        weights += [Weight(part, (width,))] * config.feed_forward_bias
    elif config.architecture == "rnn":  # three gates; in the encoder half of the width reads in each direction
        for unit in [width - width // 2, width // 2] if part == "encoder" else [width]:
            weights += [Weight(part, (width, 3 * unit), length), Weight(part, (unit, 3 * unit), length)]
            weights.append(Weight(part, (2, 3 * unit)))
    else:
        weights += [Weight(part, (config.reach, width, 2 * width), length), Weight(part, (2 * width,))]
    if part == "decoder":
        weights += norm + _list_attention(config, part, length, config.context_length)
    return weights


def _list_attention(config, part, queries, keys):
    """Queries; keys and values; output. Nothing has a bias."""
    size = config.num_heads * config.head_size
    shared = 2 * config.key_value_heads * config.head_size
    shapes = [(config.d_model, size), (config.d_model, shared), (size, config.d_model)]
    return [Weight(part, shape, positions) for shape, positions in zip(shapes, (queries, keys, queries), strict=True)]


def _list_norm(norm, part, width):
    return [Weight(part, (width,))] * {"none": 0, "rms": 1, "layer": 2, "batch_layer": 4}[norm]


def count_parameters(config):
    """{part: numbers that are trained}. Their sum is what Keras counts in a built model.

    A transformer's block has D·(2·H·K + 2·G·K) weights in each attention, of which the encoder has one and the decoder
    two, and 2·D·F, or 3·D·F with a gate, in its feed-forward layer (Kaplan et al. 2020, table 1; Shazeer 2020); to
    these come norms, biases and positions. A table has V·D; an output that is the input table has none.
    """
    counts = dict.fromkeys(PARTS, 0)
    for weight in list_weights(config):
        counts[weight.part] += 0 if weight.shared else weight.size
    return counts


def count_flops(config):
    """{part: floating-point operations of one row, forward and backward}, of the matrix products alone.

    A product of [n, i] and [i, o] takes 2·n·i·o, a multiplication and an addition each, and twice as much again in the
    backward pass, once for the gradient of either factor (Kaplan et al. 2020, section 2.1). For N weights that all meet
    the same D tokens that is the known 6·N·D. In an encoder–decoder a weight meets the positions of its own side alone:

        encoder            6·S for each of its weights, and 12·S·S·H·K a block, for scores and what they weigh
        decoder            6·T for each of its weights, but 6·C for those of the context's keys and values;
                           12·T·(T + C)·H·K a block. With a context vector, C is 1
        output_embedding   6·T·D·V, also where its matrix is the input table
        embeddings         nothing: rows of a table are looked up, and positions added

    The terms with two lengths are those of Chowdhery et al. 2022, appendix B (12·L·H·K·T a token); a masked score is
    computed like any other. Softmax, norms, biases, activations, dropout and the optimiser are left out, as in Kaplan's
    table 1: they are small, and take time for the memory they move.

    >>> from tf_llm.model.sizes import build_size
    >>> flops, parameters = count_flops(build_size("t5_small")), 60_506_624
    >>> sum(flops.values()) / 1e9, 6 * parameters * (512 + 128) / 1e9
    (109.873987584, 232.34543616)
    """
    counts = dict.fromkeys(PARTS, 0)
    for weight in list_weights(config):
        counts[weight.part] += 6 * weight.size * weight.positions
    for part, queries, keys in list_attentions(config):
        counts[part] += 12 * queries * keys * config.num_heads * config.head_size
    return counts


def list_attentions(config):
    """[(part, queries, keys)] of one row, for each attention of the model."""
    source, target = config.source_length, config.target_length
    looks_round = config.architecture == "transformer"
    attentions = [("encoder", source, source)] * (config.num_layers * looks_round)
    attentions += [("decoder", target, target)] * (config.decoder_layers * looks_round)
    return attentions + [("decoder", target, config.context_length)] * config.decoder_layers


def count_state(config, optimizer, averages=False):
    """Numbers that an optimiser keeps beside the weights: 0, 1 or 2 for each, and one more where it averages them.

    Adafactor keeps means by row and by column, and in Keras all squares besides (Shazeer and Stern 2018 do without:
    that was its point). Muon keeps one number for the matrices of the blocks, and Adam's two for everything else.

    Raises:
        UserError: an unknown optimiser.

    >>> from tf_llm.model.sizes import build_size
    >>> count_state(build_size("t5_small"), "adam")
    121013248
    """
    if optimizer not in STATE_COPIES:
        raise UserError(f"optimizer expected one of {sorted(STATE_COPIES)}. Received: {optimizer!r}")
    own = [weight for weight in list_weights(config) if not weight.shared]
    state = (STATE_COPIES[optimizer] + averages) * sum(weight.size for weight in own)
    if optimizer == "adafactor":
        for weight in own:
            *others, rows, columns = (1, *weight.shape)
            factored = len(weight.shape) > 1
            state += math.prod(others) * (rows + columns) if factored else 2  # placeholders
    if optimizer == "muon":
        state += sum(weight.size for weight in own if not _is_hidden_matrix(weight))
    return state


def _is_hidden_matrix(weight):
    return weight.part in ("encoder", "decoder") and weight.positions > 0 and len(weight.shape) == 2


def count_memory(config, optimizer, precision, rows, accumulates=False, compiled=False, averages=False):
    """{what: bytes on one device} at the moment of a training step that needs most; every device holds all of it.

        weights        4·N, in float32 also under the mixed precisions
        optimizer      4 bytes for each number of `count_state`
        gradients      4·N, twice where they are accumulated, and the weights in the compute dtype where that is not
                       float32
        activations    B times what the forward pass keeps for the backward pass (`count_activations`)
        logits         float32 [B, T, V] twice: themselves, and their gradient; compiled, once in the compute dtype, and
                       a byte more, for what shows which of them is the target

    Not all of this is alive at one time: most gradients are made when activations are gone. The sum is an upper bound,
    and not a loose one: of a step that XLA compiles whole, it is up to three tenths above what XLA says that it takes
    (examples/benchmarks/tpu_compiles.py).

    Args:
        config: a `ModelConfig`.
        optimizer: a key of STATE_COPIES.
        precision: a key of COMPUTE_BYTES.
        rows: B, those that are on the device at a time.
        accumulates: whether gradients of several batches are added up before an update.
        compiled: whether XLA compiles the step whole, as for a TPU; else each operation writes down what it computes.
        averages: whether the optimiser keeps running means of the weights (`ema_decay`).

    Raises:
        UserError: an unknown optimiser or precision.
    """
    if precision not in COMPUTE_BYTES:
        raise UserError(f"precision expected one of {sorted(COMPUTE_BYTES)}. Received: {precision!r}")
    parameters, size = sum(count_parameters(config).values()), COMPUTE_BYTES[precision]
    return {
        "weights": FLOAT32 * parameters,
        "optimizer": FLOAT32 * count_state(config, optimizer, averages),
        "gradients": (FLOAT32 * (1 + accumulates) + size % FLOAT32) * parameters,
        "activations": rows * count_activations(config, precision, compiled),
        "logits": rows * (size + 1 if compiled else 2 * FLOAT32) * config.target_length * config.said_vocabulary_size,
    }


def count_activations(config, precision, compiled=False):
    """Bytes of one row that the forward pass keeps for the backward pass, and the largest that comes in between.

    Kept, in the compute dtype, is what goes into matrix products, norms and activations. Numbers for each position:

        every part of a block   2·D, the sum that came in and its norm; 3·D with the article's pair of norms
        attention               2·H·K, queries and what was found; 2·G·K for each key, and 2·H·K more where H queries
                                share G keys; H weights for each pair of query and key
        feed-forward            2·F, or 3·F with a gate; D more where neighbours are mixed
        recurrence, convolution 8·D, 5·D
        ends of a stack         2·D, or 4·D with a norm behind the embedding
        dropout                 as much again as what it is applied to

    In between, in the backward pass, come the float32 gradients of one attention's scores, [B, H, T, S]: those of the
    largest one are counted. Without XLA, TensorFlow also keeps what was cast from one precision to another.

    A step that is `compiled` keeps less, since XLA computes anew what costs no matrix product: norms (D less in every
    part of a block), what an activation puts out (F less), and dropout, of which a byte an element stays, its mask. It
    keeps the weights of attention as softmax gave them, in float32, in rows of a multiple of 128, as wide as a TPU is.
    """
    width, size = config.d_model, config.num_heads * config.head_size
    keys_values = 2 * config.key_value_heads * config.head_size
    keys_values += 2 * size * (config.key_value_heads < config.num_heads)
    again = 0 if compiled else 1  # what can be computed anew
    part = width * (1 + again + (config.norm == "batch_layer"))
    inside = {
        "transformer": config.d_ff * (1 + again + (config.activation in GATED)),
        "rnn": 8 * width,
        "cnn": 5 * width,
    }[config.architecture]
    position_wise = part + inside + width * (config.short_convolution > 0)
    ends = width * (2 + 2 * (config.input_norm != "none"))
    dropped_inside = config.d_ff * (config.architecture == "transformer" and config.feed_forward_dropout > 0)
    dropped_part = width * (config.residual_dropout > 0)
    dropped_ends = width * ((config.embedding_dropout > 0) + (config.output_dropout > 0))
    kept = dropped = 0
    for length, layers in ((config.source_length, config.num_layers), (config.target_length, config.decoder_layers)):
        kept += length * (ends + layers * position_wise)
        dropped += length * (dropped_ends + layers * (dropped_part + dropped_inside))
    pairs = []
    for _, queries, keys in list_attentions(config):
        pairs.append(config.num_heads * queries * (-(-keys // LANES) * LANES if compiled else keys))
        kept += queries * (part + 2 * size) + keys * keys_values
        dropped += queries * dropped_part + pairs[-1] * (config.attention_dropout > 0)
    number = COMPUTE_BYTES[precision]
    kept_pairs, mask = (FLOAT32, 1) if compiled else (number, number)  # bytes of each
    return kept * number + sum(pairs) * kept_pairs + dropped * mask + max(pairs) * FLOAT32
