"""What the transformer replaced: encoder–decoders of recurrent and of convolutional blocks, with attention between.

They take the place of the transformer's blocks and leave everything else as it is (embeddings, context, attention to
the context, output, training, decoding), so that a comparison shows what self-attention is worth.

    rnn   gated recurrent units, in the encoder one in each direction, and attention to the encoder
          (Cho et al. 2014; Bahdanau et al. 2015; attention behind the recurrence as in Luong et al. 2015)
    cnn   convolutions with gated linear units, causal in the decoder (Gehring et al. 2017)

Glossary: B batch, S source length, T target length, D width, N rows in decoding, k new tokens of a decoding step,
R reach of a convolution (its kernel size).
"""

import keras
from keras import ops

from tf_llm.model.stacks import ContextAttention, Residual


@keras.saving.register_keras_serializable("tf_llm")
class Recurrence(keras.layers.Layer):
    """A gated recurrent unit that passes over padding.

    Args:
        width: of its state.
        backwards: whether it reads from the end.

    Call: (hidden [B, T, D], keep_mask bool [B, T], state [B, width] or None for zeros) -> (its state at each token
    [B, T, width], the last one [B, width]).
    """

    def __init__(self, width, backwards=False, **kwargs):
        super().__init__(**kwargs)
        self.width, self.backwards = width, backwards
        self.gru = keras.layers.GRU(
            width,
            return_sequences=True,
            return_state=True,
            go_backwards=backwards,
            name="gru",
            dtype=self.dtype_policy,
        )

    def build(self, hidden_shape):
        self.gru.build(hidden_shape)

    def call(self, hidden, keep_mask, state=None):
        states, last = self.gru(hidden, initial_state=state, mask=keep_mask)
        return ops.flip(states, axis=1) if self.backwards else states, last  # [B, T, width], [B, width]

    def get_config(self):
        return {**super().get_config(), "width": self.width, "backwards": self.backwards}


class RecurrentEncoderBlock:
    """One recurrence in each direction, of half the width: hidden [B, S, D] -> [B, S, D]."""

    def __init__(self, config, name):
        self.residual = Residual(config, f"{name}_recurrence")
        half = config.d_model // 2
        self.forwards = Recurrence(config.d_model - half, name=f"{name}_forwards")
        self.backwards = Recurrence(half, backwards=True, name=f"{name}_backwards")

    def __call__(self, hidden, keep_mask, seen):
        def read(normed):
            both = [direction(normed, keep_mask)[0] for direction in (self.forwards, self.backwards)]
            return ops.concatenate(both, axis=-1)  # [B, S, D]

        return self.residual(hidden, keep_mask, read)


class RecurrentDecoderBlock:
    """A recurrence, then attention to the context. Its cache is one vector: all that it knows of what was said."""

    def __init__(self, config, name):
        self.residual = Residual(config, f"{name}_recurrence")
        self.recurrence = Recurrence(config.d_model, name=f"{name}_recurrence")
        self.context_attention = ContextAttention(config, name)
        self.cache_shapes = {"state": (config.d_model,)}

    def __call__(self, hidden, keep_mask, seen, context, cache, position):
        written = {}

        def speak(normed):
            states, written["state"] = self.recurrence(normed, keep_mask, cache["state"] if cache else None)
            return states  # [N, k, D]

        hidden = self.residual(hidden, keep_mask, speak)
        return self.context_attention(hidden, keep_mask, context), written


@keras.saving.register_keras_serializable("tf_llm")
class Convolution(keras.layers.Layer):
    """A convolution over tokens, one half of which gates the other: [B, T + R - 1, D] -> [B, T, D]."""

    def __init__(self, reach, **kwargs):
        super().__init__(**kwargs)
        self.reach = reach

    def build(self, hidden_shape):
        width = hidden_shape[-1]
        self.convolution = keras.layers.Conv1D(2 * width, self.reach, name="convolution", dtype=self.dtype_policy)
        self.convolution.build(hidden_shape)

    def call(self, hidden):
        linear, gate = ops.split(self.convolution(hidden), 2, axis=-1)  # [B, T, D] each
        return linear * ops.sigmoid(gate)

    def get_config(self):
        return {**super().get_config(), "reach": self.reach}


class ConvolutionalEncoderBlock:
    """A convolution that sees (R - 1)/2 tokens to each side: hidden [B, S, D] -> [B, S, D]."""

    def __init__(self, config, name):
        self.residual = Residual(config, f"{name}_convolution")
        self.convolution = Convolution(config.reach, name=f"{name}_convolution")
        self.before, self.behind = config.reach // 2, (config.reach - 1) // 2

    def __call__(self, hidden, keep_mask, seen):
        def read(normed):
            kept = normed * ops.cast(keep_mask, normed.dtype)[..., None]  # padding looks like the edge of the row
            return self.convolution(ops.pad(kept, ((0, 0), (self.before, self.behind), (0, 0))))

        return self.residual(hidden, keep_mask, read)


class ConvolutionalDecoderBlock:
    """A convolution that sees the token and the R - 1 before it, then attention to the context.

    Its cache is a window of those R - 1 vectors.
    """

    def __init__(self, config, name):
        self.residual = Residual(config, f"{name}_convolution")
        self.convolution = Convolution(config.reach, name=f"{name}_convolution")
        self.context_attention = ContextAttention(config, name)
        self.before = config.reach - 1
        self.cache_shapes = {"window": (self.before, config.d_model)}

    def __call__(self, hidden, keep_mask, seen, context, cache, position):
        written = {}

        def speak(normed):
            if cache:
                seen_now = ops.concatenate([cache["window"], normed], axis=1)  # [N, R - 1 + k, D]
                written["window"] = seen_now[:, -self.before :]
            else:
                seen_now = ops.pad(normed, ((0, 0), (self.before, 0), (0, 0)))
            return self.convolution(seen_now)

        hidden = self.residual(hidden, keep_mask, speak)
        return self.context_attention(hidden, keep_mask, context), written
