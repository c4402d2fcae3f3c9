"""PAGES: where raw pages come from. Every source is re-iterable and yields `contracts.Page`."""

from tf_llm.crawl.cdx import CommonCrawlPages
from tf_llm.crawl.common_crawl import CommonCrawl
from tf_llm.crawl.datasets import HuggingFaceDataset, KaggleDataset
from tf_llm.crawl.formats import read_files
from tf_llm.crawl.json_lines import JsonLines
from tf_llm.crawl.parquet import Parquet
from tf_llm.crawl.self_crawl import SelfCrawl
from tf_llm.crawl.tables import Csv
from tf_llm.crawl.texts import HtmlFiles, TextFiles
from tf_llm.crawl.warc import Warc
from tf_llm.crawl.wikipedia import Wikipedia, WikipediaDump

__all__ = [
    "CommonCrawl",
    "CommonCrawlPages",
    "Csv",
    "HtmlFiles",
    "HuggingFaceDataset",
    "JsonLines",
    "KaggleDataset",
    "Parquet",
    "SelfCrawl",
    "TextFiles",
    "Warc",
    "Wikipedia",
    "WikipediaDump",
    "read_files",
]
