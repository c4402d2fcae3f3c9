"""Names that a package imports when they are asked for."""

import doctest
import subprocess
import sys

import pytest

from tf_llm import crawl, lazy


def test_docstring_examples():
    result = doctest.testmod(lazy)
    assert result.attempted and result.failed == 0


def test_every_source_is_found_and_an_unknown_one_named():
    assert [getattr(crawl, name).__name__ for name in crawl.__all__] == crawl.__all__
    assert set(dir(crawl)) == set(crawl.__all__)
    with pytest.raises(AttributeError, match=r"'tf_llm.crawl' has no attribute 'Wrac'\. Known: .*Warc"):
        crawl.Wrac  # noqa: B018


def test_one_source_leaves_the_others_alone():
    code = "import sys; from tf_llm.crawl import Warc; print(*(name for name in sys.modules if name in sys.argv))"
    others = ["tf_llm.crawl.wikipedia", "tf_llm.crawl.download", "http.client"]
    result = subprocess.run([sys.executable, "-c", code, "tf_llm.crawl.warc", *others], capture_output=True, text=True)
    assert result.stdout.split() == ["tf_llm.crawl.warc"], result.stdout + result.stderr
