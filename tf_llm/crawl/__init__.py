"""PAGES: where raw pages come from. Every source is re-iterable and yields `contracts.Page`.

A source is imported when it is first asked for: a worker process needs one of them, and starts sooner without the rest.
"""

from tf_llm.lazy import look_up_later

_LAZY = {
    "CommonCrawl": "tf_llm.crawl.common_crawl",
    "CommonCrawlPages": "tf_llm.crawl.cdx",
    "Csv": "tf_llm.crawl.tables",
    "HtmlFiles": "tf_llm.crawl.texts",
    "HuggingFaceDataset": "tf_llm.crawl.datasets",
    "JsonLines": "tf_llm.crawl.json_lines",
    "KaggleDataset": "tf_llm.crawl.datasets",
    "Parquet": "tf_llm.crawl.parquet",
    "SelfCrawl": "tf_llm.crawl.self_crawl",
    "TextFiles": "tf_llm.crawl.texts",
    "Warc": "tf_llm.crawl.warc",
    "Wikipedia": "tf_llm.crawl.wikipedia",
    "WikipediaDump": "tf_llm.crawl.wikipedia",
    "read_files": "tf_llm.crawl.formats",
}

__all__ = list(_LAZY)
__getattr__, __dir__ = look_up_later(__name__, _LAZY)
