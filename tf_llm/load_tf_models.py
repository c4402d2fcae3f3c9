"""A model with the weights of a checkpoint that the TensorFlow Models wrote."""

import tensorflow as tf

from tf_llm.contracts import UserError
from tf_llm.model.encoder_decoder import build_model
from tf_llm.model.tf_models import config_from_arrays, load_arrays

VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"  # what the key of every variable of a checkpoint ends in
SLOT = "/.OPTIMIZER_SLOT/"  # what the key of an optimiser's moment has behind the name of its variable
NOT_THE_MODEL = ("global_step", "optimizer", "save_counter")  # what else the official trainer keeps


def from_tf_models(checkpoint, precision="float32", **settings):
    """Builds the transformer of a `tf.train.Checkpoint` of `official.nlp.modeling.models.Seq2SeqTransformer`.

    Neither the official package nor its Keras is needed. The shape is read off the tensors.

    Args:
        checkpoint: the prefix of a checkpoint, or a folder of which the newest is taken. It may be of the model alone
            (`save_weights`), of `tf.train.Checkpoint(model=model)`, or of the official trainer, optimiser and all.
        precision: see `build_model`.
        settings: of a `ModelConfig`, what tensors do not tell: `source_length` and `target_length`, 64 each if left
            out, and dropouts. Whatever is not named is as in the official translation task: norms come first, ReLU.

    Returns:
        An `EncoderDecoder`. Its tokenizer is not part of a checkpoint.

    Raises:
        UserError: there is no such checkpoint, it cannot be read, or its tensors are not those of such a model.

    >>> model = from_tf_models("runs/translation/ckpt-100000", source_length=256)           # doctest: +SKIP
    """
    try:
        arrays = _read_arrays(checkpoint)
    except (tf.errors.OpError, ValueError, IndexError) as error:  # IndexError: TensorFlow's, for a file cut short
        reason = str(error).splitlines()[0]
        raise UserError(
            f"expected a TensorFlow checkpoint at {checkpoint}. Received: {reason}. Check the path"
        ) from error
    model = build_model(config_from_arrays(arrays, **settings), precision)
    load_arrays(model, arrays)
    return model


def _read_arrays(checkpoint):
    """{path of attributes, from the model on: array}."""
    reader, arrays = tf.train.load_checkpoint(str(checkpoint)), {}
    for key in reader.get_variable_to_shape_map():
        if key.endswith(VALUE) and SLOT not in key and not key.startswith(NOT_THE_MODEL):
            arrays[key.removesuffix(VALUE).removeprefix("model/")] = reader.get_tensor(key)
    return arrays
