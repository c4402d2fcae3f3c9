"""The embedded default source: what it reads, that it imports nothing, that the same sources give the same bytes."""

import gzip
import pickle
import re
import sys
import sysconfig
import textwrap
from pathlib import Path

import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType

from tf_llm.contracts import UserError
from tf_llm.crawl import self_crawl
from tf_llm.crawl.docstrings import split_paragraphs
from tf_llm.crawl.self_crawl import SelfCrawl, limit_size, list_modules

WORDS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu")


def write_prose(seed, count=80):
    """Sentences that no other seed gives."""
    return " ".join(f"{WORDS[(seed * 7 + n * n) % len(WORDS)]}{seed}x{n}" for n in range(count))


def write_module(path, docstring, body=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'"""{docstring}"""\n{textwrap.dedent(body)}', encoding="utf-8")


@pytest.fixture
def site(tmp_path, monkeypatch):
    """An empty folder on the import path."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    return folder


@pytest.fixture
def crawl(tmp_path):
    return lambda *packages, cache="cache": SelfCrawl(packages, cache_dir=tmp_path / cache)


def read_texts(source):
    return {page.url.rsplit("/")[-1].removesuffix(".html"): page.content.decode() for page in source}


def test_stdlib_packages_become_pages(crawl):
    source = crawl("json", "email")
    pages = read_texts(source)
    assert {"json", "json.decoder", "email.message", "email.header"} <= pages.keys()
    assert "<h2>class JSONDecoder</h2>" in pages["json.decoder"]
    assert "<h2>dumps(obj, *, skipkeys=False" in pages["json"]
    assert "Serialize ``obj`` to a JSON formatted ``str``." in pages["json"]
    assert source.figures["pages"] == len(pages) and not source.rejections
    assert source.figures["words"] > 3000


def test_standard_library_leaves_out_what_is_not_its_own():
    names = dict(list_modules("python"))
    assert {"json.decoder", "argparse", "os", "collections"} <= names.keys()
    assert not [name for name in names if re.search(r"(^|\.)(tests?|idlelib|lib2to3|pydoc_data)(\.|$)", name)]
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    assert not [path for path in names.values() if "site-packages" in path.relative_to(stdlib).parts]


def test_help_topics_are_a_page_each(crawl):
    source = crawl("pydoc_data")
    pages = read_texts(source)
    assert "<h3>Format String Syntax</h3>" in pages["formatstrings"]
    assert source.figures["pages"] == len(pages) > 40


def check_payload(record):
    record.parse_http()
    return record.verify_payload_digest()


def test_archive_is_a_valid_warc_of_one_member_a_record(crawl):
    path = crawl("json", "email").build()
    with path.open("rb") as file:
        records = [
            (
                record.record_type,
                record.headers["WARC-Date"],
                record.verify_block_digest(consume=False),
                check_payload(record),
            )
            for record in ArchiveIterator(file, parse_http=False)
        ]
    assert records[0][0] == WarcRecordType.warcinfo and records[0][2]
    assert len(records) > 5
    for kind, date, block, payload in records[1:]:
        assert (kind, date, block, payload) == (WarcRecordType.response, "2000-01-01T00:00:00Z", True, True)
    content = path.read_bytes()
    assert content.count(b"\x1f\x8b\x08\x00\x00\x00\x00\x00") == len(records)  # members, each without a date
    assert gzip.decompress(content).count(b"WARC/1.1\r\n") == len(records)


def test_same_sources_give_the_same_bytes_under_the_same_name(crawl):
    first, second = crawl("json", "email").build(), crawl("json", "email", cache="other").build()
    assert first != second and first.name == second.name
    assert first.read_bytes() == second.read_bytes()


def test_cache_is_used_until_a_source_changes(crawl, site, monkeypatch):
    write_module(site / "planted.py", write_prose(1))
    path = crawl("planted").build()
    with monkeypatch.context() as patch:
        patch.setattr(self_crawl, "make_pages", None)  # to be called is an error
        again = crawl("planted")
        assert again.build() == path
        assert again.figures["pages"] == 1
    write_module(site / "planted.py", write_prose(2))
    assert crawl("planted").build() != path
    assert write_prose(2) in read_texts(crawl("planted"))["planted"]


@pytest.mark.parametrize("damage", ["cut", "empty", "record missing", "record cut", "record is no object"])
def test_half_written_cache_is_never_used(crawl, damage):
    path = crawl("json").build()
    whole, record = path.read_bytes(), path.with_name(path.name.replace(".warc.gz", ".json"))
    known = record.read_text()
    match damage:
        case "cut":
            path.write_bytes(whole[: len(whole) // 2])
        case "empty":
            path.write_bytes(b"")
        case "record missing":
            record.unlink()
            path.write_bytes(whole[:100])
        case "record cut":
            record.write_text(known[: len(known) // 2])
        case "record is no object":
            record.write_text("[]")
    assert crawl("json").build().read_bytes() == whole
    assert record.read_text() == known


def test_interrupted_write_leaves_nothing(crawl, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(UserError, match=r"expected room for .* bytes, received No space left on device; .*cache_dir"):
        crawl("json").build()
    assert not list((tmp_path / "cache").iterdir())


def test_unreadable_modules_cost_themselves(crawl, site):
    write_module(site / "planted" / "__init__.py", write_prose(1))
    write_module(site / "planted" / "good.py", write_prose(2))
    (site / "planted" / "syntax.py").write_text("def (:\n")
    (site / "planted" / "encoding.py").write_bytes(b"# -*- coding: utf-8 -*-\n'''\xff\xfe'''\n")
    (site / "planted" / "unknown.py").write_bytes(b"# -*- coding: no-such-thing -*-\n")
    (site / "planted" / "null.py").write_bytes(b"'''a\x00b'''\n")
    (site / "planted" / "deep.py").write_text("x = " + "-" * 100_000 + "1\n")
    (site / "planted" / "gone.py").symlink_to(site / "nowhere")
    for _ in range(2):  # made, and from the cache
        source = crawl("planted")
        assert set(read_texts(source)) == {"planted", "planted.good"}
        assert source.rejections == {"unreadable module": 6}


def test_nothing_is_imported(crawl, site):
    write_module(site / "planted" / "__init__.py", write_prose(1), "raise RuntimeError('imported')")
    write_module(site / "planted" / "bomb.py", write_prose(2), "raise RuntimeError('imported')")
    assert set(read_texts(crawl("planted"))) == {"planted", "planted.bomb"}
    assert not [name for name in sys.modules if name.startswith("planted")]


def test_markup_in_docstrings_stays_text(crawl, site):
    hostile = "</p></pre></main><script>alert(1)</script><!-- {title} &amp; " + write_prose(1)
    write_module(site / "planted.py", hostile, "def f(a='<b>'):\n    '''>>> </pre><script>'''")
    page = read_texts(crawl("planted"))["planted"]
    assert "&lt;/p&gt;&lt;/pre&gt;&lt;/main&gt;&lt;script&gt;alert(1)&lt;/script&gt;&lt;!-- {title} &amp;amp; " in page
    assert "<h2>f(a=&#x27;&lt;b&gt;&#x27;)</h2>" in page
    assert "<pre>&gt;&gt;&gt; &lt;/pre&gt;&lt;script&gt;</pre>" in page
    assert "<script>" not in page and page.count("</main>") == 1


def test_half_a_surrogate_pair_is_no_obstacle(crawl, site):
    write_module(site / "planted.py", "\\udc80 " + write_prose(1))
    assert "? " in read_texts(crawl("planted"))["planted"]


def test_a_paragraph_is_written_once(crawl, site):
    shared = write_prose(1)
    write_module(site / "first.py", f"{shared}\n\n{write_prose(2)}")
    write_module(
        site / "second.py",
        f"{write_prose(3)}\n\nNotes\n-----\n{shared}\n\n{shared.replace(' ', '   ')}",
        f"""
        class Base:
            '''{write_prose(4)}'''

        class Heir(Base):
            '''{write_prose(4)}'''

            def method(self):
                '''{write_prose(5)}'''
        """,
    )
    pages = read_texts(crawl("first", "second"))
    text = " ".join(" ".join(pages.values()).split())
    for seed in range(1, 6):
        assert text.count(write_prose(seed)) == 1
    # A heading goes with the last paragraph below it.
    assert "class Base" in text and "Heir.method(self)" in text
    assert "class Heir<" not in text
    assert ("<h3>Notes</h3>" in text) == (shared in " ".join(pages["second"].split()))


def test_definitions_below_conditions_are_found(crawl, site):
    body = f"""
    try:
        import nothing
    except ImportError:
        async def fallback(x: int, /, *, y: str = "a") -> int:
            '''{write_prose(2)}'''
    if True:
        class Inner:
            class Innermost:
                '''{write_prose(3)}'''
    """
    write_module(site / "planted.py", "Short.", body)
    page = read_texts(crawl("planted"))["planted"]
    assert "<h2>fallback(x, /, *, y=&#x27;a&#x27;)</h2>" in page
    assert "<h2>class Inner.Innermost</h2>" in page


def test_short_pages_are_left_out(crawl, site):
    write_module(site / "planted" / "__init__.py", "Says little.")
    write_module(site / "planted" / "long.py", write_prose(1))
    assert set(read_texts(crawl("planted"))) == {"planted.long"}


@pytest.mark.parametrize("modules", [(3, 4, 5, 6, 60), (3, 4, 5, 50, 60), (20, 30, 40, 50, 60)])
def test_no_package_is_more_than_a_quarter(crawl, site, modules):
    packages = [f"package{number}" for number in range(len(modules))]
    for seed, (package, count) in enumerate(zip(packages, modules, strict=True)):
        for number in range(count):
            write_module(site / package / f"m{number}.py", write_prose(seed * 100 + number, count=80 + number))
    source = crawl(*packages)
    pages = read_texts(source)
    sizes = source.figures["characters"]
    largest, whole = max(sizes.values()), sum(sizes.values())
    page = max(map(len, pages.values()))  # the grain of the cap
    assert whole / 4 - page < largest <= whole / 4
    assert sum(map(len, pages.values())) > whole
    alone = crawl(packages[0])
    alone.build()
    assert alone.figures["characters"][packages[0]] == sizes[packages[0]]  # what is small is kept whole


@pytest.mark.parametrize(
    ("sizes", "limit"),
    [
        ([60, 10, 10, 5, 5], 10),
        ([10, 10, 10, 10, 10], 12),
        ([100, 100, 30, 30, 30], 45),
        ([90, 80, 70, 60, 5], 65),
        ([9] * 4 + [1], 9),
    ],
)
def test_limit_is_the_largest_that_keeps_the_share(sizes, limit):
    def holds(limit):
        kept = [min(size, limit) for size in sizes]
        return all(size * 4 <= sum(kept) for size in kept)

    assert limit_size(sizes) == limit
    assert holds(limit)
    assert max(sizes) <= limit or not holds(limit + 1)


def test_few_packages_are_kept_whole():
    assert limit_size([5]) == 5
    assert limit_size([5, 9, 0, 0, 0, 0]) == 9
    assert limit_size([]) == 0


def test_paragraphs_of_the_usual_styles():
    docstring = textwrap.dedent("""\
        Adds two
        numbers.

        Args:
            a: The first.

        Returns
        -------
        int
            The sum.

        >>> add(1, 2)
        3

        ```python
        add(1,

            2)
        ```
        Afterword.""")
    assert list(split_paragraphs(docstring)) == [
        ("p", "Adds two\nnumbers."),
        ("p", "Args:\n    a: The first."),
        ("h3", "Returns"),
        ("p", "int\n    The sum."),
        ("pre", ">>> add(1, 2)\n3"),
        ("pre", "add(1,\n\n    2)"),
        ("p", "Afterword."),
    ]


def test_shards_partition_the_pages(crawl):
    source = crawl("json", "email")
    whole = sorted(page.url for page in source)
    parts = [[page.url for page in source.shard(index, 3)] for index in range(3)]
    assert all(parts)
    assert sorted(url for part in parts for url in part) == whole
    assert len(set(whole)) == len(whole)
    assert [page.url for page in source] == [page.url for page in source]
    copy = pickle.loads(pickle.dumps(source))
    copy.fetch()
    assert (repr(copy), copy.parts, [page.url for page in copy]) == (repr(source), 1, [page.url for page in source])


def test_unknown_package_is_a_one_line_error(crawl):
    for name in ("no_such_package", "os.path", "sys", ""):
        with pytest.raises(
            UserError, match=f"installed package with Python sources. Received: {name!r}.* leave it out"
        ):
            crawl(name).build()


def test_cache_that_cannot_be_made_is_a_one_line_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        UserError, match=r"expected a folder for the cache that can be written. Received: .*XDG_CACHE_HOME"
    ):
        SelfCrawl(("json",), cache_dir=tmp_path / "file" / "cache").build()


def test_default_cache_is_the_users(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert SelfCrawl(("json",)).build().parent == tmp_path / "tf_llm"
