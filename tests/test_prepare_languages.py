"""Pages that are not English go the whole way: from a WET file to shards from which their text can be read again."""

import dataclasses
import json

import pytest

import tf_llm
from tf_llm.crawl.warc import Warc
from tf_llm.data.pipeline import read_blocks
from tf_llm.prepare.engine import prepare
from tf_llm.prepare.worker import WorkerConfig
from tf_llm.text.filters import FilterConfig
from tf_llm.text.tokenizers import load_tokenizer

SPANISH = (
    "El té verde número {n} se bebe caliente en la cocina. ¿Quién no lo ha probado nunca en su vida? ¡La abuela de la "
    "casa lo prepara con mucha paciencia! Escribe a abuela@te.example para saber más de ella y de sus gatos."
)
CHINESE = (
    "第{n}杯绿茶是在厨房里喝的。谁没有在冬天的早晨尝过它呢？祖母每天都非常耐心地准备这壶茶！"
    "猫坐在窗台上看着雨慢慢地落下来。"
)
ENGLISH = (
    "Cup {n} of green tea is drunk in the kitchen. Who has never tried it before? The cat looks at the rain and waits."
)
MENU = "Inicio | Contacto | Mapa"


def write_wet(path, count=20):
    """A WET file as Common Crawl writes it: the text of pages, with their languages in the head."""
    records = []
    for number in range(count):
        for code, text in (("spa", SPANISH), ("zho", CHINESE), ("eng", ENGLISH)):
            body = f"{MENU}\n{text.format(n=number)}".encode()
            records.append(
                f"WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Target-URI: https://{code}.example/{number}\r\n"
                f"WARC-Date: 2026-11-01T00:00:00Z\r\nWARC-Record-ID: <urn:x:{code}{number}>\r\n"
                f"WARC-Identified-Content-Language: {code}\r\nContent-Type: text/plain\r\n"
                f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body
                + b"\r\n\r\n"
            )
    path.write_bytes(b"".join(records))
    return path


@pytest.mark.parametrize("tokens", ["characters", "unigram"])
def test_spanish_and_chinese_come_out_as_they_went_in(tmp_path, tokens):
    run = tf_llm.recipes.article()
    run = dataclasses.replace(
        run,
        tokens=tokens,
        words=dataclasses.replace(run.words, vocabulary_size=600, minimum_count=1),
        filters=FilterConfig(names="language,c4,gopher_repetition,personal_data", languages="es,zh"),
        shards=dataclasses.replace(run.shards, validation_fraction=0.2),
        workers=WorkerConfig(processes=1),
    )
    shards = prepare(Warc(write_wet(tmp_path / "pages.warc.wet")), run, tmp_path / "data")
    statistics = json.loads((shards.folder / "statistics.json").read_bytes())
    assert statistics["rejected"] == {"language: not admitted": 20} and statistics["pages"] == 60
    assert statistics["languages"] == {"es": 20, "zh": 20}
    assert statistics["edited"]["c4: no end mark"] == 40 and statistics["edited"]["personal_data: email"] == 20
    tokenizer = load_tokenizer(shards.folder / "tokenizer.json")
    stream = read_blocks(shards, "train")[:, run.shards.overlap :].ravel()
    text = tokenizer.decode(stream[stream != 0].tolist())
    assert "¡La abuela de la casa lo prepara con mucha paciencia! Escribe a <email> para saber" in text
    assert "杯绿茶是在厨房里喝的。谁没有在冬天的早晨尝过它呢？祖母每天都非常耐心地准备这壶茶！" in text
    assert MENU not in text and "green tea" not in text
