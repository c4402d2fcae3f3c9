"""A search engine in a folder: pages or products in, the best ones for a query out.

    pip install "tf_llm[search]"
    python examples/search.py                                       # the documentation of this Python; then type
    python examples/search.py --query="read a file line by line"    # ask once
    python examples/search.py --folder=runs/shop --catalogue=products.csv --filter=brand=Acme --query=shoes
    python examples/search.py --folder=runs/site --source=warc --warc=pages.warc.gz

The first call reads 1,352 pages and indexes them in about 20 seconds on 2 cores; later ones add what is named and find
the rest there. You should see titles with a passage each, its words in bold, how many entries have which values, and
`did you mean` where a word is not written as the pages write it. With --encoder, which trains for some minutes the
first time (a folder beside the index keeps it), entries are found by their meaning, too, as far as that finds more.
"""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow greets at length when it is imported
from absl import flags

import tf_llm.flags

FOLDER = flags.DEFINE_string("folder", "runs/search", "The folder of the index.")
CATALOGUE = flags.DEFINE_multi_string("catalogue", [], "CSV or JSON Lines files of products to add.")
QUERY = flags.DEFINE_string("query", None, "What is asked for; without it, you may type.")
FILTER = flags.DEFINE_multi_string("filter", [], "name=value, such as site=example.org; several must all hold.")
COUNT = flags.DEFINE_integer("count", 5, "Hits that are shown.", lower_bound=1)
ENCODER = flags.DEFINE_bool("encoder", False, "Search by meaning, too: train an encoder on what is indexed.")
tf_llm.flags.define_source_flags()


def main():
    from tf_llm.apps.search import Encoder, SearchIndex, read_catalogue, read_site  # each is imported when it is used

    folder = Path(FOLDER.value)
    encoder = Encoder.load(folder / "encoder") if ENCODER.value and (folder / "encoder").is_dir() else None
    index = SearchIndex.open(folder / "index", encoder)
    if CATALOGUE.value:
        print(index.update(read_catalogue(CATALOGUE.value)))
    elif not len(index) or flags.FLAGS.source != "auto":
        if flags.FLAGS.source == "auto":
            flags.FLAGS.source = "self_crawl"
        print(index.update(read_site(tf_llm.flags.build_source())))
    if ENCODER.value and encoder is None:
        from tf_llm.apps.search.tuning import choose_weight, train_encoder

        entries = index.list_entries()
        encoder, _ = train_encoder(entries)
        encoder.save(folder / "encoder")
        weight, scores = choose_weight(entries, encoder)
        print(f"the dense ranking counts {weight}; held-out texts are found by their titles with an MRR of {scores}")
        index.rebuild(encoder, weight)
    filters = dict(each.partition("=")[::2] for each in FILTER.value)
    print(f"{len(index):,} entries in {folder}")
    for query in [QUERY.value] if QUERY.value is not None else iter(lambda: input("search: "), ""):
        show(index.search(query, filters, COUNT.value))


def show(results):
    print(f"{results.total:,} entries" + (f"; did you mean: {results.suggestion}" if results.suggestion else ""))
    for number, hit in enumerate(results.hits, 1):
        text = hit.snippet.text
        for begin, end in reversed(hit.snippet.highlights):
            text = f"{text[:begin]}\033[1m{text[begin:end]}\033[0m{text[end:]}"  # bold, in a terminal
        print(f"{number:3} {hit.title}\n    {hit.address}\n    {text}")
    for name, facet in results.facets.items():
        print(f"    {name}: " + ", ".join(f"{value} ({count})" for value, count in facet.values))


if __name__ == "__main__":
    try:
        tf_llm.flags.launch(main)
    except EOFError:  # the end of what is typed
        print()
