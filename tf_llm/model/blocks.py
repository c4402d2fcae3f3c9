"""The blocks of the encoder and of the decoder: which small layers they are made of, and how these are wired.

A block is not a Keras layer. It holds layers, and called on Keras tensors it draws them into whichever graph is being
built: the model for training, the start or one step of decoding. All of these graphs share the weights.

Every block is of the kind that normalises first: what a part computes from the normalised vectors is added to the
vectors that came in.

Glossary: B batch, S source length, T target length, C context length (1 for a vector, S for a sequence), D width,
H heads, K head size, N rows in decoding, k new tokens of a decoding step.
"""

import keras

from tf_llm.model.layers import Attend, CacheWrite, FeedForward, KeysValues


def build_norm(name):
    """Layer normalisation with the article's epsilon."""
    return keras.layers.LayerNormalization(epsilon=1e-6, name=name)


class EncoderBlock:
    """Self-attention, then a feed-forward layer.

    Args:
        config: a `ModelConfig`.
        name: what the names of its layers begin with.

    Call: (hidden [B, S, D], attention_mask bool, broadcast to [B, H, S, S]) -> [B, S, D].
    """

    def __init__(self, config, name):
        self.attention_norm = build_norm(f"{name}_attention_norm")
        self.keys_values = KeysValues(config.num_heads, name=f"{name}_keys_values")
        self.attend = Attend(name=f"{name}_attention")
        self.feed_forward_norm = build_norm(f"{name}_feed_forward_norm")
        self.feed_forward = FeedForward(config.d_ff, name=f"{name}_feed_forward")
        self.dropout = keras.layers.Dropout(config.residual_dropout, name=f"{name}_dropout")

    def __call__(self, hidden, attention_mask):
        normed = self.attention_norm(hidden)
        hidden = hidden + self.dropout(self.attend(normed, *self.keys_values(normed), attention_mask))
        return hidden + self.dropout(self.feed_forward(self.feed_forward_norm(hidden)))  # [B, S, D]


class DecoderBlock:
    """Self-attention to what was said so far, attention to the context, then a feed-forward layer.

    The context may be a single vector. Attention to one vector is the same linear map of it at every position,
    whatever the queries and keys are; their weights then get gradients of zero.

    Args:
        config: a `ModelConfig`.
        name: what the names of its layers begin with.
    """

    def __init__(self, config, name):
        self.attention_norm = build_norm(f"{name}_attention_norm")
        self.keys_values = KeysValues(config.num_heads, name=f"{name}_keys_values")
        self.cache_write = CacheWrite(name=f"{name}_cache_write")
        self.attend = Attend(name=f"{name}_attention")
        self.context_norm = build_norm(f"{name}_context_norm")
        self.context_keys_values = KeysValues(config.num_heads, name=f"{name}_context_keys_values")
        self.attend_context = Attend(name=f"{name}_context_attention")
        self.feed_forward_norm = build_norm(f"{name}_feed_forward_norm")
        self.feed_forward = FeedForward(config.d_ff, name=f"{name}_feed_forward")
        self.dropout = keras.layers.Dropout(config.residual_dropout, name=f"{name}_dropout")

    def __call__(self, hidden, attention_mask, context_keys_values, context_mask, cache=None, position=None):
        """Draws the block.

        Args:
            hidden: [N, k, D], all T tokens in training.
            attention_mask: bool, broadcast to [N, H, k, T].
            context_keys_values: what `self.context_keys_values` makes of the context, two of [N, C, H, K].
            context_mask: bool, broadcast to [N, H, k, C].
            cache: (keys, values), two of [N, T, H, K] that hold the tokens before `position`; None in training.
            position: int32 [], where the first of the k tokens stands; None in training.

        Returns:
            hidden [N, k, D], and (keys, values), which are the cache with the new tokens written into it.
        """
        normed = self.attention_norm(hidden)
        keys, values = self.keys_values(normed)  # [N, k, H, K] each
        if cache is not None:
            keys = self.cache_write(cache[0], keys, position=position)  # [N, T, H, K]
            values = self.cache_write(cache[1], values, position=position)  # [N, T, H, K]
        hidden = hidden + self.dropout(self.attend(normed, keys, values, attention_mask))
        normed = self.context_norm(hidden)
        hidden = hidden + self.dropout(self.attend_context(normed, *context_keys_values, context_mask))
        hidden = hidden + self.dropout(self.feed_forward(self.feed_forward_norm(hidden)))
        return hidden, (keys, values)


class DecoderBlocks:
    """All blocks of the decoder and the normalisation behind them: what training and cached decoding share.

    Args:
        config: a `ModelConfig`.
    """

    def __init__(self, config):
        self.blocks = [DecoderBlock(config, f"decoder_{i}") for i in range(config.num_layers)]
        self.norm = build_norm("decoder_norm")

    def context_keys_values(self, context):
        """Draws what each block looks up in the context: [N, C, D] -> for each block (keys, values) [N, C, H, K]."""
        return [block.context_keys_values(context) for block in self.blocks]

    def __call__(self, hidden, attention_mask, context_keys_values, context_mask, caches=None, position=None):
        """Draws the blocks one behind the other; as `DecoderBlock.__call__`, with one (keys, values) for each block."""
        written = []
        caches = caches or [None] * len(self.blocks)
        for block, context, cache in zip(self.blocks, context_keys_values, caches, strict=True):
            hidden, cache = block(hidden, attention_mask, context, context_mask, cache, position)
            written.append(cache)
        return self.norm(hidden), written
