"""The blocks of the transformer (Vaswani et al. 2017). How blocks become an encoder and a decoder: stacks.py.

Glossary: B batch, S source length, T target length, C context length, D width, G key/value heads, K head size, N rows
in decoding, k new tokens of a decoding step.
"""

from keras import ops

from tf_llm.model.layers import Attend, CacheWrite, FeedForward, KeysValues, ShortConvolution
from tf_llm.model.stacks import ContextAttention, Residual


class SelfAttention:
    """The tokens of one side look at each other: hidden [N, k, D] -> [N, k, D], and what a cache is to remember.

    Args:
        config: a `ModelConfig`.
        name: what the names of its layers begin with.
        causal: whether tokens are mixed with what stands before them alone.
    """

    def __init__(self, config, name, causal):
        self.residual = Residual(config, f"{name}_attention")
        self.keys_values = KeysValues(config.key_value_heads, config.head_size, name=f"{name}_keys_values")
        self.attend = Attend(
            config.num_heads,
            config.head_size,
            config.attention_scale,
            config.attention_dropout,
            name=f"{name}_attention",
        )
        self.cache_write = CacheWrite(name=f"{name}_cache_write")
        kept = (config.key_value_heads, config.target_length, config.head_size)
        self.cache_shapes = {"keys": kept, "values": kept}
        self.convolution = None
        if config.short_convolution:
            others = config.short_convolution - 1
            before = others if causal else (others + 1) // 2
            self.convolution = ShortConvolution(before, others - before, name=f"{name}_convolution")
            self.cache_shapes["window"] = (before, config.d_model)

    def __call__(self, hidden, keep_mask, seen, cache=None, position=0):
        written = {}

        def look_round(normed):
            if self.convolution:
                normed, written["window"] = self.mix(normed, seen["segments"], cache)
            keys, values = self.keys_values(normed, seen["rotation"])  # [N, G, k, K] each
            if cache:
                keys = written["keys"] = self.cache_write(cache["keys"], keys, position=position)  # [N, G, T, K]
                values = written["values"] = self.cache_write(cache["values"], values, position=position)
            return self.attend(normed, keys, values, seen["attention_mask"], seen["bias"], seen["rotation"])

        hidden = self.residual(hidden, keep_mask, look_round)
        return hidden, written if cache else {}

    def mix(self, normed, segments, cache):
        """Tokens with their neighbours in them [N, k, D], and the last ones as they were, for the next step."""
        before, behind = self.convolution.before, self.convolution.behind
        if cache:  # one example a row, and nothing behind
            wide = ops.concatenate([cache["window"], normed], axis=1)  # [N, before + k, D]
            return self.convolution(wide), wide[:, -before:]
        wide = ops.pad(normed, ((0, 0), (before, behind), (0, 0)))  # [N, before + k + behind, D]
        if segments is not None:
            segments = ops.pad(segments, ((0, 0), (before, behind)))
        return self.convolution(wide, segments), None


class PositionwiseFeedForward:
    """The feed-forward layer within its residual: hidden [N, k, D] -> [N, k, D]."""

    def __init__(self, config, name):
        self.residual = Residual(config, f"{name}_feed_forward")
        self.feed_forward = FeedForward(
            config.d_ff,
            config.activation,
            config.feed_forward_bias,
            config.feed_forward_dropout,
            name=f"{name}_feed_forward",
        )

    def __call__(self, hidden, keep_mask):
        return self.residual(hidden, keep_mask, self.feed_forward)


class EncoderBlock:
    """Self-attention, then a feed-forward layer: hidden [B, S, D] -> [B, S, D]."""

    def __init__(self, config, name):
        self.attention = SelfAttention(config, name, causal=False)
        self.feed_forward = PositionwiseFeedForward(config, name)

    def __call__(self, hidden, keep_mask, seen):
        hidden, _ = self.attention(hidden, keep_mask, seen)
        return self.feed_forward(hidden, keep_mask)


class DecoderBlock:
    """Self-attention to what was said so far, attention to the context, then a feed-forward layer.

    Its cache holds the keys and values of the tokens before `position`, and room for all T; and, where neighbours are
    mixed, the last few tokens themselves.
    """

    def __init__(self, config, name):
        self.attention = SelfAttention(config, name, causal=True)
        self.context_attention = ContextAttention(config, name)
        self.feed_forward = PositionwiseFeedForward(config, name)
        self.cache_shapes = self.attention.cache_shapes

    def __call__(self, hidden, keep_mask, seen, context, cache, position):
        hidden, written = self.attention(hidden, keep_mask, seen, cache, position)
        hidden = self.context_attention(hidden, keep_mask, context)
        return self.feed_forward(hidden, keep_mask), written
