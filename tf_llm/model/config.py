"""The shape and the regularisation of a model: what may be chosen, and which choices go together."""

import dataclasses

from tf_llm.model import baselines, transformer
from tf_llm.model.layers import ACTIVATIONS
from tf_llm.model.norms import NORMS
from tf_llm.model.positions import POSITIONS

# name -> (what a block of the encoder is, what a block of the decoder is)
ARCHITECTURES = {
    "transformer": (transformer.EncoderBlock, transformer.DecoderBlock),
    "rnn": (baselines.RecurrentEncoderBlock, baselines.RecurrentDecoderBlock),
    "cnn": (baselines.ConvolutionalEncoderBlock, baselines.ConvolutionalDecoderBlock),
}
CONTEXTS = ("sequence", "vector")
EMBEDDINGS = ("inputs", "all", "none")
NORM_PLACES = ("first", "last")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape and regularisation of an encoder–decoder. The defaults are the article's, where it names one."""

    architecture: str = "transformer"  # what blocks are made of; "rnn" and "cnn" are the baselines
    vocabulary_size: int = 8_003  # V, the special tokens included
    target_vocabulary_size: int = 0  # of what the decoder says, where that has ids of its own; 0 is vocabulary_size
    source_length: int = 64  # S, tokens that the encoder reads
    target_length: int = 64  # T, tokens that the decoder says
    num_layers: int = 2  # blocks in the encoder
    num_decoder_layers: int = 0  # blocks in the decoder; 0 is as many as in the encoder
    num_heads: int = 4  # H
    num_key_value_heads: int = 0  # G, a divisor of H: grouped-query attention; 0 is H
    d_head: int = 0  # K, the width of one head; 0 is d_model / num_heads
    d_model: int = 256  # D
    d_ff: int = 1024  # width between the two layers of a feed-forward block
    short_convolution: int = 0  # tokens, its own among them, that are mixed into one before self-attention; 0 is none
    reach: int = 5  # tokens that a convolution of the architecture "cnn" sees
    context: str = "vector"  # what the decoder sees of the source: one "vector" (the article), or the whole "sequence"
    positions: str = "learned"  # or "sinusoidal", "relative" (T5), "rotary", "none"
    relative_buckets: int = 32  # of the distances of relative positions
    relative_distance: int = 128  # from which on all distances are one
    norm: str = "layer"  # in and behind the blocks: "layer", "rms", or "batch_layer", the article's pair
    norm_place: str = "first"  # "first" before each part of a block, or "last" behind each residual sum
    norm_epsilon: float = 1e-6  # added to a variance before the root is taken
    input_norm: str = "batch_layer"  # of the embedded words, as in the article; a norm, or "none"
    activation: str = "relu"  # between the layers of a feed-forward block; or "gelu", "gated_gelu", "swiglu"
    feed_forward_bias: bool = True  # whether those layers have biases
    attention_scale: bool = True  # whether queries are divided by the root of the head size; T5's are not
    embeddings: str = "inputs"  # one table for both "inputs", for "all" (the output too), or for "none" but its own use
    embedding_scale: bool = False  # whether embedded words are multiplied by the root of d_model
    output_scale: bool = False  # whether what the output embedding is given is divided by the root of d_model
    output_bias: bool = True  # whether each word has a bias in the output
    embedding_dropout: float = 0.1  # after the input embedding, as in the article
    attention_dropout: float = 0.0  # on the weights of attention; the article names no such place
    feed_forward_dropout: float = 0.0  # between the layers of a feed-forward block
    residual_dropout: float = 0.0  # on what each part of a block adds
    output_dropout: float = 0.0  # on what the encoder and the decoder hand on
    output_l2: float = 0.01  # L2 on the kernel of the output embedding, as in the article
    packed: bool = False  # whether rows hold several examples, kept apart by segments

    def __post_init__(self):
        sizes = ("vocabulary_size", "source_length", "target_length", "num_layers", "num_heads", "d_model", "d_ff")
        for name in sizes:
            self._check_whole(name, 1)
        for name in ("target_vocabulary_size", "num_decoder_layers", "num_key_value_heads", "d_head"):
            self._check_whole(name, 0)
        self._check_whole("reach", 2)
        self._check_whole("short_convolution", 2 if self.short_convolution else 0)
        self._check_whole("relative_buckets", 4)
        self._check_whole("relative_distance", self.relative_buckets)
        self._check_choices()
        for name in ("embedding", "attention", "feed_forward", "residual", "output"):
            if not 0 <= getattr(self, f"{name}_dropout") < 1:
                received = getattr(self, f"{name}_dropout")
                raise ValueError(f"model.{name}_dropout expected a share in [0, 1). Received: {received!r}")
        if not self.output_l2 >= 0:
            raise ValueError(f"model.output_l2 expected a number of at least 0. Received: {self.output_l2!r}")
        if not 0 < self.norm_epsilon < 1:
            raise ValueError(f"model.norm_epsilon expected a number in (0, 1). Received: {self.norm_epsilon!r}")
        self._check_shapes()
        self._check_combinations()

    def _check_whole(self, name, least):
        value = getattr(self, name)
        if not isinstance(value, int) or value < least:
            raise ValueError(f"model.{name} expected a whole number of at least {least}. Received: {value!r}")

    def _check_choices(self):
        for name, known in (
            ("architecture", ARCHITECTURES),
            ("context", CONTEXTS),
            ("positions", POSITIONS),
            ("norm", NORMS),
            ("norm_place", NORM_PLACES),
            ("input_norm", [*NORMS, "none"]),
            ("activation", ACTIVATIONS),
            ("embeddings", EMBEDDINGS),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"model.{name} expected one of {sorted(known)}. Received: {getattr(self, name)!r}")

    def _check_shapes(self):
        if not self.d_head and self.d_model % self.num_heads:
            raise ValueError(
                f"model.d_model expected a multiple of num_heads, which is {self.num_heads}, or a d_head. "
                f"Received: {self.d_model}"
            )
        if self.num_heads % self.key_value_heads:
            raise ValueError(
                f"model.num_key_value_heads expected a divisor of num_heads, which is {self.num_heads}. "
                f"Received: {self.num_key_value_heads}"
            )
        if self.positions == "sinusoidal" and (self.d_model % 2 or self.d_model < 4):
            raise ValueError(
                "model.d_model expected an even number of at least 4 with sinusoidal positions. "
                f"Received: {self.d_model}; choose another, or positions='learned'"
            )
        if self.positions == "rotary" and self.head_size % 2:
            raise ValueError(f"model.d_head expected an even number with rotary positions. Received: {self.head_size}")

    def _check_combinations(self):
        """Refuses what would build and then do something else than it says."""
        for refused, reason in (
            (
                self.architecture != "transformer" and self.positions in ("relative", "rotary"),
                f"positions='{self.positions}' expected self-attention, which architecture='{self.architecture}' has "
                "not; choose learned, sinusoidal or none",
            ),
            (
                self.architecture != "transformer" and self.short_convolution,
                f"short_convolution expected self-attention, which architecture='{self.architecture}' has not; "
                "choose short_convolution=0",
            ),
            (
                self.target_vocabulary_size and self.embeddings != "none",
                "target_vocabulary_size expected embeddings='none': two vocabularies share no table",
            ),
            (
                self.embeddings == "all" and self.output_l2 > 0,
                "output_l2 expected to be 0 with embeddings='all': it would shrink the input words, too",
            ),
            (
                self.packed and self.context == "vector",
                "packed expected context='sequence': one vector would mix all examples of a row",
            ),
            (
                self.packed and "batch_layer" in (self.norm, self.input_norm),
                "packed expected norms without batch statistics; choose norm and input_norm among layer, rms",
            ),
            (
                self.packed and self.architecture != "transformer",
                f"packed expected architecture='transformer': nothing keeps the examples of a row apart in "
                f"'{self.architecture}'",
            ),
        ):
            if refused:
                raise ValueError(f"model.{reason}. Received: both")

    @property
    def said_vocabulary_size(self):
        """How many ids the decoder can say."""
        return self.target_vocabulary_size or self.vocabulary_size

    @property
    def head_size(self):
        """K, the width of one head."""
        return self.d_head or self.d_model // self.num_heads

    @property
    def key_value_heads(self):
        """G, the heads that keys and values have."""
        return self.num_key_value_heads or self.num_heads

    @property
    def decoder_layers(self):
        """Blocks in the decoder."""
        return self.num_decoder_layers or self.num_layers

    @property
    def context_length(self):
        """C, the number of vectors that the decoder sees of the source."""
        return 1 if self.context == "vector" else self.source_length
