"""PAGES: where raw pages come from. Every source is re-iterable and yields `contracts.Page`."""

from tf_llm.crawl.cdx import CommonCrawlPages
from tf_llm.crawl.common_crawl import CommonCrawl
from tf_llm.crawl.datasets import HuggingFaceDataset, KaggleDataset
from tf_llm.crawl.json_lines import JsonLines
from tf_llm.crawl.self_crawl import SelfCrawl
from tf_llm.crawl.warc import Warc

__all__ = ["CommonCrawl", "CommonCrawlPages", "HuggingFaceDataset", "JsonLines", "KaggleDataset", "SelfCrawl", "Warc"]
