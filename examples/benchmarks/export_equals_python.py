"""Does an exported SavedModel say, in a process without tf_llm, what `Generator` says here? Any Unicode.

    python examples/benchmarks/export_equals_python.py            about 3 minutes on 2 cores
    python examples/benchmarks/export_equals_python.py --quick    words alone, greedy, under a minute

Transformers with random weights, one for each kind of tokenizer, are exported with several settings, and another
process, in which neither tf_llm nor Keras can be imported (peers/saved_model.py; tensorflow_text, which the pieces
need, cannot do without Keras), is given 100 texts: emoji, Arabic and
Hebrew, combining marks, control characters, characters of all planes, nothing at all, and 30,000 words. What it says is
compared with `Generator` byte for byte: the goal is no text that differs. Besides, there are 20 strings of bytes that
are no UTF-8, which Python has no `str` for; what is said to these has to be text.

Two things are left out. Letters younger than Unicode 14 are no letters yet to TensorFlow's engine for patterns, so that
words with them are cut elsewhere (text/tokenizers.py); so what is drawn is drawn from Unicode 3.2, which every Python
has a table of. And where a text can be cut into pieces in several ways that are equally likely to the last bit, such as
one emoji 999 times, SentencePiece and TensorFlow Text may choose another one.

The columns: how many texts differ, how many there are of different wording, the largest difference of a text's
log-probability and of a coordinate of the vectors, the size of the SavedModel, and the seconds of the export.
"""

import base64
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from unicodedata import ucd_3_2_0

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow greets at length when it is imported
import keras
import numpy as np
from absl import app, flags, logging

from tf_llm.decoding.export import export_generator
from tf_llm.decoding.generator import Generator
from tf_llm.model.config import ModelConfig
from tf_llm.model.encoder_decoder import build_model
from tf_llm.text.piece_training import build_sentence_piece_tokenizer
from tf_llm.text.tokenizers import CharTokenizer, WordTokenizer
from tf_llm.text.words import WordsConfig, split_words

TEXTS, BYTES = 100, 20
category = ucd_3_2_0.category
AWKWARD = (
    *("", " ", "\n", "\x00", "a\x00b", "👩‍👩‍👧‍👦 family 🇨🇭", "e\u0301 = é", "Z̡̖̜̠͚̖̦̦͐̑̏ͯ̓̉ͧa̾ͣͨ̈̌ͣ̔͋̑lgo", "مرحبا بالعالم (١٢٣)"),
    *("שלום, עולם!", "\u202eright to left\u202c", "\ufeffmark", "﷽", "𝛼 + 𝟛 = ½", "ﬁ İ ß ẞ Σς", "漢字 かな 한글 ไทย"),
    *("\u2028\u2029\x85\u00a0\u200b", "</s> <pad> <extra_id_0>", "▁ ▁word \ue000n", "\U0010ffff\U000e0001", "\ufffd"),
    *("the cat sat on the mat. " * 5_000, "👍🏽 " * 999, "\u0301 " * 99, '"quoted" (words), and [more]: don\'t…'),
)
SETTINGS = {
    "greedy": {"do_sample": False},
    "drawn": {"temperature": 0.9, "top_k": 20, "seed": 2**40 + 7},
    "contrast": {"penalty_alpha": 0.5},
    "beams": {"num_beams": 3, "no_repeat_ngram_size": 2},
    "stopped": {"do_sample": False, "stop_strings": ("a", "。", "e "), "repetition_penalty": 1.3, "min_new_tokens": 9},
}
MODEL = {"source_length": 32, "target_length": 16, "num_layers": 2, "d_model": 64, "d_ff": 128, "num_heads": 4}

_QUICK = flags.DEFINE_bool("quick", False, "Words alone, greedy.")


def draw_texts(random):
    """Awkward texts, and texts of words drawn from these and of characters of all kinds."""
    words = [*split_words(" ".join(AWKWARD[:-4])), "cat", "mat", "sat", "."]
    while True:
        yield from AWKWARD
        for _ in range(TEXTS - len(AWKWARD)):
            wild = [sign for sign in map(chr, random.integers(0, 0x30000, 12)) if category(sign) not in ("Cn", "Cs")]
            known = list(random.choice(words, random.integers(1, 20)))
            yield "".join(random.permutation(wild + [f"{word} " for word in known]))


def build_tokenizers(texts):
    """One of each kind that knows most of what stands in the texts."""
    counts = Counter(word for text in texts for word in split_words(text.lower()))
    characters = Counter("".join(texts))
    corpus = [*texts, "the cat sat on the mat\n"] * 3
    return {
        "words": WordTokenizer([word for word, _ in counts.most_common(300)], WordsConfig(), {"the", "on"}),
        "characters": CharTokenizer([character for character, _ in characters.most_common(300)]),
        "pieces": build_sentence_piece_tokenizer(corpus, vocabulary_size=600, kind="unigram", num_sentinels=5),
    }


def build_generator(tokenizer):
    """A generator with random weights that says many different things."""
    keras.utils.set_random_seed(3)
    model = build_model(ModelConfig(vocabulary_size=tokenizer.vocabulary_size, context="sequence", **MODEL))
    for variable in model.trainable_variables:
        variable.assign(variable + keras.random.normal(variable.shape, stddev=0.3, dtype="float32"))
    return Generator(model, tokenizer)


def ask_elsewhere(folders, prompts, folder, with_text=False):
    """What the exports say in another process: name -> its answers."""
    job = folder / "job.json"
    names = {name: str(path) for name, path in folders.items()}
    texts = [base64.b64encode(prompt).decode() for prompt in prompts]
    job.write_text(json.dumps({"prompts": texts, "texts": texts[1:11], "folders": names, "with_text": with_text}))
    script = Path(__file__).with_name("peers") / "saved_model.py"
    answer = subprocess.run([sys.executable, "-I", str(script), str(job)], capture_output=True, text=True)
    if answer.returncode:
        print(f"could not run: {answer.stderr[-2000:]}")
        sys.exit(2)
    return json.loads(answer.stdout.splitlines()[-1])


def compare(generate, settings, prompts, answers):
    """How many texts differ and how many there are, and the largest differences of scores and vectors."""
    told = [base64.b64decode(text) for text in answers["texts"]]
    said = [text.encode() for text in generate(prompts, max_new_tokens=40, **settings)]
    for text in told[len(said) :]:
        text.decode()  # of bytes that are none, text is made all the same
    scores = np.array([sum(each) for each in generate.score(prompts[:10], prompts[1:11])])
    apart = np.abs(scores - answers["log_probabilities"]) / np.maximum(1, np.abs(scores))
    vectors = np.abs(generate.embed(prompts) - np.array(answers["vectors"])[: len(prompts)])
    differing = sum(one != other for one, other in zip(told, said, strict=False))
    return differing, len(set(said)), apart.max(), vectors.max()


def main(_):
    logging.set_verbosity(logging.WARNING)
    random = np.random.default_rng(5)
    drawn = draw_texts(random)
    prompts = [next(drawn) for _ in range(TEXTS)]
    bytes_ = [random.bytes(9) + b"\xff cat \xc3" for _ in range(BYTES)]
    generators = {kind: build_generator(tokenizer) for kind, tokenizer in build_tokenizers(prompts).items()}
    cases = [(kind, name) for kind in generators for name in list(SETTINGS)[: 5 if kind == "words" else 2]]
    total = 0
    with tempfile.TemporaryDirectory() as temporary:
        folders, seconds = {}, {}
        for kind, name in cases[:1] if _QUICK.value else cases:
            begin = time.perf_counter()
            folder = Path(temporary, kind, name)
            folders[f"{kind} {name}"] = export_generator(generators[kind], folder, max_new_tokens=40, **SETTINGS[name])
            seconds[f"{kind} {name}"] = time.perf_counter() - begin
        strings, answers = [prompt.encode() for prompt in prompts] + bytes_, {}
        for with_text in (False, True):
            some = {name: folder for name, folder in folders.items() if name.startswith("pieces") == with_text}
            if some:
                answers |= ask_elsewhere(some, strings, Path(temporary), with_text)
        print(f"{'':18} differing of  wordings    score  vectors       MB  seconds")
        for case, folder in folders.items():
            kind, name = case.split()
            differing, wordings, *apart = compare(generators[kind], SETTINGS[name], prompts, answers[case])
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
            cells = " ".join(f"{each:8.0e}" for each in apart)
            print(f"{case:18} {differing:9} {TEXTS:3} {wordings:8} {cells} {size:8.2f} {seconds[case]:8.1f}")
            total += differing
    result = {"name": "export_equals_python", "value": total, "goal": 0, "unit": "texts that differ"}
    print(json.dumps(result | {"holds": total == 0}))
    sys.exit(0 if total == 0 else 1)


if __name__ == "__main__":
    app.run(main)
