"""A search engine: pages of a site or products of a catalogue in, the best ones for a query out.

    index = SearchIndex.open("runs/search")
    index.update(read_site(pages))                       # or read_catalogue("products.csv")
    index.search("green tea", {"site": "tea.example"})

What is searched are `Entry`s (entries.py). Their words go into an inverted index, ranked by BM25 (analysis.py,
lexical.py, tantivy), their vectors, where there is an encoder, into a file beside it (vectors.py); one commit serves
both (writing.py, generations.py). A query asks both (snapshots.py), the rankings become one (fusion.py), and what is
shown has a passage (snippets.py), counts of values (filters.py) and, if need be, another spelling (spelling.py).
index.py puts it all together. Needs `pip install "tf_llm[search]"`.
"""

from tf_llm.lazy import look_up_later

_LAZY = {
    "Between": "tf_llm.apps.search.filters",
    "Encoder": "tf_llm.apps.search.encoder",
    "Entry": "tf_llm.apps.search.entries",
    "SearchIndex": "tf_llm.apps.search.index",
    "read_catalogue": "tf_llm.apps.search.catalogue",
    "read_site": "tf_llm.apps.search.site",
}

__all__ = list(_LAZY)
__getattr__, __dir__ = look_up_later(__name__, _LAZY)
