"""Does `Generator` say what transformers' `generate` says, by the same T5 weights and the same settings?

    python examples/benchmarks/decoding_equals_hugging_face.py           4+4 layers, width 64, 50 inputs, 2 minutes
    python examples/benchmarks/decoding_equals_hugging_face.py --quick   1+1 layers, width 32, 12 inputs, under a minute

A T5 of random weights is made by transformers and loaded here. Its weights are spread, and the vector of the end is
long, so that inputs get unlike answers of unlike lengths. Inputs of 1 to 15 tokens go to both as one batch, with each
of the settings below; every token of every answer up to its end must be the same, with several answers an input all of
them in order. The table shows how many inputs are answered alike, how many answers differ from each other, how many of
them end by themselves, and their mean length.

Where the two are told unlike things:
- Padding and unknown are never said here; transformers is told so (suppress_tokens=[0, 2]).
- The search here is told beam_manner="hugging_face": the score log p / L^length_penalty, and what else transformers
  does in its way (decoding/beam.py). By itself it searches like the TensorFlow Models (parity_tf_models.py).
- Scores of a search are log-probabilities of what the rules leave; transformers is told renormalize_logits=True.

What is drawn cannot be the same. In its place the last rows compare the probabilities that tokens are drawn with, as
transformers' own processors leave them of random logits: the largest difference, at most 1e-5.

Needs `pip install "tf_llm[hugging_face,peers]"`. No model is downloaded.
"""

import json
import sys
import tempfile
import time

import numpy as np
import tensorflow as tf
from absl import app, flags

import tf_llm
from tf_llm.contracts import END_ID, PAD_ID, UNKNOWN_ID
from tf_llm.decoding.generator import Generator
from tf_llm.decoding.settings import choose_rules, choose_strategy, stack_settings
from tf_llm.model.hugging_face import config_to_hugging_face
from tf_llm.text.tokenizers import CharTokenizer

SHAPE = {"vocabulary_size": 60, "d_head": 16, "num_heads": 4, "source_length": 16, "target_length": 16}
SMALL, FULL = {"num_layers": 1, "d_model": 32, "d_ff": 64}, {"num_layers": 4, "d_model": 64, "d_ff": 128}
BEAMS = {"num_beams": 4, "beam_manner": "hugging_face"}
SETTINGS = {
    "greedy": {},
    "greedy, min_new_tokens 6, repetition_penalty 1.3": {"min_new_tokens": 6, "repetition_penalty": 1.3},
    "greedy, no_repeat_ngram_size 2, bad_words_ids": {
        "no_repeat_ngram_size": 2,
        "bad_words_ids": [[7], [9, 11], [5, 6]],
    },
    "4 beams, length_penalty 1, the best 4": {**BEAMS, "length_penalty": 1.0, "num_return_sequences": 4},
    "4 beams, length_penalty 0, no_repeat_ngram_size 3": {**BEAMS, "length_penalty": 0.0, "no_repeat_ngram_size": 3},
    "3 beams, length_penalty 2, repetition_penalty 1.2, min 3": {
        **BEAMS,
        "num_beams": 3,
        "length_penalty": 2.0,
        "repetition_penalty": 1.2,
        "min_new_tokens": 3,
    },
}
CUTS = (
    {"temperature": 0.7},
    {"top_k": 7},
    {"top_p": 0.8},
    {"min_p": 0.1},
    {"typical_p": 0.6},
    {"temperature": 1.4, "top_k": 20, "top_p": 0.9, "min_p": 0.02, "typical_p": 0.9, "repetition_penalty": 1.5},
)
NEAR = 1e-5
END = -6  # times what its vector was: the sign, too, decides how soon texts end

_QUICK = flags.DEFINE_bool("quick", False, "One layer of width 32, 12 inputs.")

try:
    import safetensors  # noqa: F401, for what it says where it is absent
    import torch
    import transformers
    from transformers.generation import logits_process as processors
except ImportError as error:
    print(f'could not run: {error}; pip install "tf_llm[hugging_face,peers]"')
    sys.exit(2)


def build_peer(config):
    """A T5 of transformers with random weights, spread so that little is nearly as likely as something else."""
    settings = config_to_hugging_face(config)
    torch.manual_seed(0)
    peer = transformers.T5ForConditionalGeneration(transformers.T5Config(**settings)).eval()
    peer.lm_head.weight = torch.nn.Parameter(torch.randn(config.vocabulary_size, config.d_model))
    with torch.no_grad():
        for name, weight in peer.named_parameters():
            weight.add_(torch.randn_like(weight) * (0.5 if "norm" in name or "bias" in name else 0.3 * weight.std()))
        peer.lm_head.weight[END_ID] *= END
    return peer


def make_sources(config, count):
    """Lists of 1 to S - 1 ids."""
    random = np.random.default_rng(0)
    lengths = random.integers(1, config.source_length, count)
    return [random.integers(3, config.vocabulary_size, length).tolist() for length in lengths]


def ask_peer(peer, sources, settings, max_new_tokens):
    """What transformers says: for each source a list of answers, each up to its end."""
    settings = {name: value for name, value in settings.items() if name != "beam_manner"}
    rows = [[*ids, END_ID] for ids in sources]
    padded = torch.tensor([row + [PAD_ID] * (max(map(len, rows)) - len(row)) for row in rows])
    with torch.no_grad():
        said = peer.generate(
            padded,
            attention_mask=(padded != PAD_ID).long(),
            do_sample=False,
            max_new_tokens=max_new_tokens,
            suppress_tokens=[PAD_ID, UNKNOWN_ID],
            renormalize_logits=True,
            decoder_start_token_id=PAD_ID,
            **settings,
        )
    answers = [cut_at_end(row) for row in said[:, 1:].tolist()]
    count = settings.get("num_return_sequences", 1)
    return [answers[i : i + count] for i in range(0, len(answers), count)]


def cut_at_end(ids):
    return ids[: ids.index(END_ID) + 1] if END_ID in ids else ids


def ask_ours(generate, sources, settings):
    completions = generate.complete([generate.tokenizer.decode(ids) for ids in sources], **settings)
    return [[one.ids for one in (row if isinstance(row, list) else [row])] for row in completions]


def compare_cut(settings):
    """The largest difference of a probability, for 50 rows of random logits and 5 tokens said."""
    random = np.random.default_rng(1)
    logits = random.normal(scale=2, size=(50, SHAPE["vocabulary_size"])).astype("float32")
    logits[:, [PAD_ID, UNKNOWN_ID]] = -np.inf
    said = random.integers(3, SHAPE["vocabulary_size"], (50, 5)).astype("int32")
    theirs = torch.tensor(logits)
    for name, kind in (
        ("repetition_penalty", processors.RepetitionPenaltyLogitsProcessor),
        ("temperature", processors.TemperatureLogitsWarper),
        ("top_k", processors.TopKLogitsWarper),
        ("top_p", processors.TopPLogitsWarper),
        ("min_p", processors.MinPLogitsWarper),
        ("typical_p", processors.TypicalLogitsWarper),
    ):
        if name in settings:
            theirs = kind(settings[name])(torch.tensor(said).long(), theirs)
    config = tf_llm.GenerationConfig(do_sample=True, **settings)
    arrays, fixed, _ = stack_settings([config] * 50)
    arrays, ours = {name: tf.constant(array) for name, array in arrays.items()}, tf.constant(logits)
    for rule in choose_rules(arrays, fixed):
        ours = rule(ours, tf.constant(said), 5)
    shares = tf.nn.softmax(choose_strategy(arrays, fixed).cut(ours)).numpy()
    return float(np.abs(shares - torch.softmax(theirs, -1).numpy()).max())


def main(argv):
    del argv
    begin = time.perf_counter()
    config = tf_llm.build_size("t5_v1_1_small", **SHAPE, **(SMALL if _QUICK.value else FULL))
    sources = make_sources(config, 12 if _QUICK.value else 50)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        peer = build_peer(config)
        peer.save_pretrained(folder)
        lengths = {name: SHAPE[name] for name in ("source_length", "target_length")}
        model, _ = tf_llm.from_pretrained(folder, **lengths)
    letters = [chr(0x4E00 + i) for i in range(config.vocabulary_size - 3)]
    generate = Generator(model, CharTokenizer(letters), "request")
    print(f"transformers {transformers.__version__}, torch {torch.__version__}, TensorFlow {tf.__version__}")
    print(f"{config.num_layers}+{config.num_layers} layers of width {config.d_model}, {len(sources)} inputs, float32")
    print(f"{'':62}{'alike':>10}{'answers':>10}{'ended':>8}{'length':>8}")
    unlike = 0
    for name, settings in SETTINGS.items():
        theirs, ours = ask_peer(peer, sources, settings, config.target_length), ask_ours(generate, sources, settings)
        alike = sum(one == other for one, other in zip(theirs, ours, strict=True))
        answers = [tuple(answer) for row in theirs for answer in row]
        unlike += len(sources) - alike
        ended = sum(END_ID in answer for answer in answers)
        mean = np.mean([len(answer) for answer in answers])
        print(f"{name:62}{alike:4} of {len(sources):2}{len(set(answers)):10}{ended:8}{mean:8.1f}", flush=True)
    print(f"{'probabilities that are drawn from':62}{'apart':>10}")
    apart = {", ".join(f"{name} {value}" for name, value in cut.items()): compare_cut(cut) for cut in CUTS}
    for name, difference in apart.items():
        print(f"{name:62}{difference:10.1e}")
    print(f"{time.perf_counter() - begin:.0f} seconds")
    holds = unlike == 0 and max(apart.values()) <= NEAR
    unit = f"of {len(SETTINGS) * len(sources)} inputs answered otherwise"
    print(
        json.dumps({"name": "decoding_equals_hugging_face", "value": unlike, "goal": 0, "unit": unit, "holds": holds})
    )
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    app.run(main)
