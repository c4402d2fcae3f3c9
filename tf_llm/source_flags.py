"""Command-line flags for where pages come from: `--source` names one, and some others say what of it.

A source that needs to be told what to read names the flag: an error says which one is missing, or is too many.
"""

import logging

from absl import flags

from tf_llm.contracts import UserError
from tf_llm.crawl import (
    CommonCrawl,
    CommonCrawlPages,
    Csv,
    HtmlFiles,
    HuggingFaceDataset,
    JsonLines,
    KaggleDataset,
    Parquet,
    SelfCrawl,
    TextFiles,
    Warc,
    Wikipedia,
    WikipediaDump,
    read_files,
)
from tf_llm.crawl.common_crawl import INDEX_ADDRESS
from tf_llm.crawl.download import answers
from tf_llm.crawl.warc import MEDIA_TYPES

logger = logging.getLogger(__name__)

# How each source is made of the flags.
SOURCES = {
    "common_crawl": lambda given: CommonCrawl(given.crawl, files=given.files, megabytes=given.megabytes or None),
    "common_crawl_pages": lambda given: CommonCrawlPages(
        given.url, given.crawl, languages=given.language, media_types=given.mime, limit=given.limit
    ),
    "csv": lambda given: Csv(given.path, given.text_column, given.url_column),
    "files": lambda given: read_files(given.path, given.text_column, given.url_column),
    "html": lambda given: HtmlFiles(given.path),
    "hugging_face": lambda given: HuggingFaceDataset(
        given.dataset, given.dataset_config, given.split, given.text_column, streaming=given.streaming
    ),
    "json_lines": lambda given: JsonLines(given.json_lines, given.text_column, given.url_column),
    "kaggle": lambda given: KaggleDataset(given.dataset, given.dataset_files, text_column=given.text_column),
    "parquet": lambda given: Parquet(given.path, given.text_column, given.url_column),
    "self_crawl": lambda given: SelfCrawl(),
    "text": lambda given: TextFiles(given.path),
    "warc": lambda given: Warc(given.warc),
    "wikipedia": lambda given: (
        WikipediaDump(given.path)
        if given.path
        else Wikipedia(given.language[0] if given.language else "en", given.dump, files=given.files)
    ),
}
# The flags that say what to read, and whose they are; the first of them may be left to "auto" to find out.
READS = {
    "warc": ("warc",),
    "json_lines": ("json_lines",),
    "path": ("files", "csv", "html", "parquet", "text", "wikipedia"),
    "url": ("common_crawl_pages",),
    "dataset": ("hugging_face", "kaggle"),
}


def define_source_flags():
    """Defines the flags. Call it once."""
    names = ("auto", *SOURCES)
    flags.DEFINE_enum("source", "auto", names, "Pages; auto is Common Crawl, or self_crawl where that is silent.")
    flags.DEFINE_multi_string("warc", [], "WARC or WET files for --source=warc, a path or a pattern.")
    flags.DEFINE_multi_string("json_lines", [], "JSON Lines files for --source=json_lines, a path or a pattern.")
    flags.DEFINE_multi_string("path", [], f"Files for {', '.join(READS['path'])}: a path, a pattern or a folder.")
    flags.DEFINE_string("text_column", "text", "Tables, JSON Lines, data sets: the column or field of texts.")
    flags.DEFINE_string("url_column", "url", "Tables and JSON Lines: the column of addresses.")
    flags.DEFINE_string("crawl", None, "Common Crawl: which one, such as CC-MAIN-2026-39; by default the newest.")
    flags.DEFINE_integer("files", 1, "Common Crawl and Wikipedia: how many files.", lower_bound=1)
    flags.DEFINE_float("megabytes", 100.0, "Common Crawl: how much of each file; 0 is all of it.", lower_bound=0)
    flags.DEFINE_string("url", None, "common_crawl_pages: an address, or a pattern such as *.example.org.")
    flags.DEFINE_multi_string("language", [], "common_crawl_pages: pages mainly in one of these; wikipedia: which one.")
    flags.DEFINE_multi_string("mime", MEDIA_TYPES, "common_crawl_pages: what kind of file the pages are.")
    flags.DEFINE_integer("limit", None, "common_crawl_pages: at most so many; one takes .55 seconds.", lower_bound=1)
    flags.DEFINE_string("dump", "latest", "Wikipedia: the date of the dump, such as 20261101.")
    flags.DEFINE_string("dataset", None, "hugging_face, kaggle: the data set, owner/name.")
    flags.DEFINE_string("dataset_config", None, "hugging_face: which of its subsets, where it has several.")
    flags.DEFINE_string("split", "train", "hugging_face: which of its splits.")
    flags.DEFINE_bool("streaming", True, "hugging_face: read it as it comes, in place of copying all of it first.")
    flags.DEFINE_string("dataset_files", "**/*", "kaggle: which of its files, a pattern such as *.csv.")


def build_source():
    """The source of pages that the flags name. Raises UserError where a file is missing, or flags contradict."""
    name = flags.FLAGS.source
    for flag, owners in READS.items():
        is_given = bool(flags.FLAGS[flag].value)
        if is_given and name == "auto":
            name = owners[0]
        elif is_given and name not in owners:
            raise UserError(
                f"expected --{flag} with --source={' or --source='.join(owners)} alone. Received: --source={name}. "
                "Leave one of them out"
            )
        elif name in owners and not is_given and name != "wikipedia":
            raise UserError(f"expected --{flag} with --source={name}. Received: none. Say what is to be read")
    if name == "auto":
        name = "common_crawl" if answers(f"{INDEX_ADDRESS}/collinfo.json") else "silent"
    silent = "Common Crawl does not answer within 5 s: " if name == "silent" else ""
    if name in ("self_crawl", "silent"):
        logger.info("%sreading the documentation that is installed with this Python", silent)
        name = "self_crawl"
    else:
        logger.info("reading pages of %s (--source=self_crawl needs no network)", name)
    return SOURCES[name](flags.FLAGS)
