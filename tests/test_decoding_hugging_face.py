"""What is said equals what transformers says; decoding_equals_hugging_face.py among the benchmarks asks for more."""

import numpy as np
import pytest

from tf_llm.contracts import END_ID, PAD_ID, UNKNOWN_ID
from tf_llm.decoding.generator import Generator
from tf_llm.load import from_pretrained
from tf_llm.model.hugging_face import config_to_hugging_face
from tf_llm.model.sizes import build_size
from tf_llm.text.tokenizers import CharTokenizer

LENGTHS = {"source_length": 8, "target_length": 10}
SHAPE = {"vocabulary_size": 40, "d_model": 32, "d_head": 8, "num_heads": 4, "d_ff": 48, "num_layers": 1}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The same weights there and here."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    pytest.importorskip("safetensors")
    config, folder = build_size("t5_v1_1_small", **SHAPE, **LENGTHS), tmp_path_factory.mktemp("t5")
    torch.manual_seed(0)
    peer = transformers.T5ForConditionalGeneration(transformers.T5Config(**config_to_hugging_face(config))).eval()
    peer.lm_head.weight = torch.nn.Parameter(torch.randn(config.vocabulary_size, config.d_model))
    with torch.no_grad():
        for name, weight in peer.named_parameters():
            weight.add_(torch.randn_like(weight) * (0.5 if "norm" in name or "bias" in name else 0.3 * weight.std()))
        peer.lm_head.weight[END_ID] *= -6  # so that texts end
    peer.save_pretrained(folder)
    letters = [chr(ord("A") + i) for i in range(config.vocabulary_size - 3)]
    return peer, Generator(from_pretrained(folder, **LENGTHS)[0], CharTokenizer(letters), "request")


@pytest.mark.parametrize(
    "settings",
    [
        {"repetition_penalty": 1.3, "min_new_tokens": 4, "no_repeat_ngram_size": 2, "bad_words_ids": [[7], [9, 11]]},
        {"num_beams": 3, "num_return_sequences": 2, "length_penalty": 1.0, "repetition_penalty": 1.2},
    ],
    ids=["greedy", "beams"],
)
def test_it_says_what_transformers_says(both, settings):
    peer, generate = both
    import torch

    random = np.random.default_rng(0)
    sources = [random.integers(3, 40, random.integers(1, 8)).tolist() for _ in range(16)]
    padded = torch.tensor([[*ids, END_ID, *[PAD_ID] * (8 - len(ids))] for ids in sources])
    said = peer.generate(
        padded,
        attention_mask=(padded != PAD_ID).long(),
        do_sample=False,
        max_new_tokens=10,
        suppress_tokens=[PAD_ID, UNKNOWN_ID],
        renormalize_logits=True,
        decoder_start_token_id=PAD_ID,
        **settings,
    )
    theirs = [row[: [*row, END_ID].index(END_ID) + 1] for row in said[:, 1:].tolist()]
    prompts = [generate.tokenizer.decode(ids) for ids in sources]
    ours = generate.complete(prompts, **settings, beam_manner="hugging_face")
    ours = [one.ids for row in ours for one in (row if isinstance(row, list) else [row])]
    assert ours == theirs
    assert len(set(map(tuple, theirs))) > 8 and len(set(map(len, theirs))) > 2
