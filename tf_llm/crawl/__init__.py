"""PAGES: where raw pages come from. Every source is re-iterable and yields `contracts.Page`.

A source is imported when it is first asked for: a worker process needs one of them, and starts sooner without the rest.
"""

import importlib

_LAZY = {
    "CommonCrawl": "common_crawl",
    "CommonCrawlPages": "cdx",
    "Csv": "tables",
    "HtmlFiles": "texts",
    "HuggingFaceDataset": "datasets",
    "JsonLines": "json_lines",
    "KaggleDataset": "datasets",
    "Parquet": "parquet",
    "SelfCrawl": "self_crawl",
    "TextFiles": "texts",
    "Warc": "warc",
    "Wikipedia": "wikipedia",
    "WikipediaDump": "wikipedia",
    "read_files": "formats",
}

__all__ = list(_LAZY)


def __getattr__(name):
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}. Known: {', '.join(__all__)}")
    return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)


def __dir__():
    return __all__
