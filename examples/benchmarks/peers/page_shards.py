"""One contestant of data_engine_speed.py: WARC files in, token ids on the disk, in a process bound to some cores.

    python examples/benchmarks/peers/page_shards.py datatrove --folder=/tmp/out --cores=1 pages.warc.gz

Prints a line of JSON: the pages that came out, the bytes of their text, their tokens, the seconds it took and those of
processor time, all its processes together, its own imports left out. A new contestant is a function of (paths, folder,
processes) that returns (pages, text bytes, tokens, begin), where `begin` is `read_clocks()` when its imports were done,
and a line in CONTESTANTS.
"""

import dataclasses
import functools
import json
import os
import sys
import time
import warnings
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from absl import app, flags

_FOLDER = flags.DEFINE_string("folder", None, "An empty folder to write to.", required=True)
_CORES = flags.DEFINE_integer("cores", 1, "Cores to run on, and processes that share the work.")

VOCABULARY_SIZE, SECONDS_PER_PAGE = 8_000, 10.0


def read_clocks():
    """Seconds, and seconds of processor time of this process and of its children that have ended."""
    return time.perf_counter(), sum(os.times()[:4])


def run_tf_llm(paths, folder, processes):
    """Ours, as `tf_llm.recipes.article()` has it."""
    import tf_llm
    from tf_llm.prepare.worker import WorkerConfig

    run = tf_llm.recipes.article()
    run = dataclasses.replace(
        run, words=dataclasses.replace(run.words, stop_words="own"), workers=WorkerConfig(processes=processes)
    )
    begin = read_clocks()
    shards = tf_llm.prepare(tf_llm.crawl.Warc(paths), run, folder / "data")
    splits = (shards.train, shards.validation)
    return (*(sum(getattr(each, name) for each in splits) for name in ("pages", "text_bytes", "tokens")), begin)


def run_datatrove(paths, folder, processes, extractor=None):
    """WarcReader, an extractor, PIIFormatter and JsonlWriter; the words of all texts counted, and DocumentTokenizer."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false" if processes == 1 else "true"
    import orjson
    from datatrove.executor.local import LocalPipelineExecutor
    from datatrove.pipeline.extractors import Trafilatura
    from datatrove.pipeline.formatters import PIIFormatter
    from datatrove.pipeline.readers import JsonlReader, WarcReader
    from datatrove.pipeline.tokens import DocumentTokenizer
    from datatrove.pipeline.writers import JsonlWriter
    from datatrove.utils.logging import logger
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

    from tf_llm.text.word_pattern import WORD_PATTERN

    logger.remove()
    begin = read_clocks()
    execute = functools.partial(LocalPipelineExecutor, tasks=processes, workers=processes, skip_completed=False)
    (folder / "names.txt").write_text("".join(f"{path.name}\n" for path in paths))
    reader = WarcReader(str(paths[0].parent), paths_file=str(folder / "names.txt"))
    extract = extractor or Trafilatura(timeout=SECONDS_PER_PAGE)
    writer = JsonlWriter(str(folder / "texts"), compression=None)
    execute([reader, extract, PIIFormatter(), writer], logging_dir=str(folder / "logs 1")).run()

    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WORD_PATTERN), "removed", invert=True)
    lines = (line for path in sorted((folder / "texts").iterdir()) for line in path.open("rb"))
    texts = [orjson.loads(line)["text"] for line in lines]
    trainer = trainers.WordLevelTrainer(
        vocab_size=VOCABULARY_SIZE, min_frequency=2, special_tokens=["<pad>", "</s>", "<unk>"], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))

    ids = DocumentTokenizer(
        str(folder / "ids"), str(folder / "tokenizer.json"), eos_token="</s>", shuffle_documents=False
    )
    execute([JsonlReader(str(folder / "texts")), ids], logging_dir=str(folder / "logs 2")).run()
    tokens = sum(path.stat().st_size // 2 for path in (folder / "ids").glob("*.ds"))
    return len(texts), sum(len(text.encode()) for text in texts), tokens, begin


def run_datatrove_fast(paths, folder, processes):
    """The same with tf_llm's own extraction in place of trafilatura's: a page that decodes alike has the same text."""
    from datatrove.pipeline.extractors.base import BaseExtractor

    from tf_llm.text.html import extract_text

    class Fast(BaseExtractor):
        name = "tf_llm's extract_text"

        def __init__(self):
            super().__init__(timeout=SECONDS_PER_PAGE)

        def extract(self, text):
            return extract_text(text)

    return run_datatrove(paths, folder, processes, Fast())


def run_script(paths, folder, processes, parser="html.parser"):
    """The script that everybody writes first; the documents stay in memory, and nothing protects it from a page."""
    import nltk
    import numpy as np
    from bs4 import BeautifulSoup
    from warcio.archiveiterator import ArchiveIterator

    from tf_llm.text.words import load_stop_words

    stop_words, _ = load_stop_words("own")
    warnings.simplefilter("ignore")
    begin = read_clocks()
    documents, size = [], 0
    for path in paths:
        with path.open("rb") as file:
            for record in ArchiveIterator(file):
                if record.rec_type == "response":
                    text = BeautifulSoup(record.content_stream().read(), parser).get_text(" ").lower()
                    words = nltk.word_tokenize(text, preserve_line=True)  # the default needs a download
                    documents.append([word for word in words if word not in stop_words])
                    size += len(text.encode("utf-8", "surrogatepass"))
    counts = nltk.FreqDist(word for document in documents for word in document)
    ids = {word: id for id, (word, count) in enumerate(counts.most_common(VOCABULARY_SIZE), start=3) if count > 1}
    rows = [np.array([ids[word] for word in document if word in ids], "uint16") for document in documents]
    np.save(folder / "ids.npy", np.concatenate(rows))
    return len(documents), size, sum(map(len, rows)), begin


CONTESTANTS = {
    "tf_llm": run_tf_llm,
    "datatrove": run_datatrove,
    "datatrove, our extraction": run_datatrove_fast,
    "script, html.parser": run_script,
    "script, lxml": functools.partial(run_script, parser="lxml"),
}


def main(argv):
    _, name, *paths = argv
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: _CORES.value])
    pages, size, tokens, begin = CONTESTANTS[name]([Path(path) for path in paths], Path(_FOLDER.value), _CORES.value)
    seconds, processor_seconds = (now - then for now, then in zip(read_clocks(), begin, strict=True))
    result = {"pages": pages, "text_bytes": size, "tokens": tokens}
    print(json.dumps(result | {"seconds": seconds, "processor_seconds": processor_seconds}))


if __name__ == "__main__":
    sys.exit(app.run(main))
