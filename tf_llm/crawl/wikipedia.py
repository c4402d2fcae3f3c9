"""Wikipedia: its articles as plain text, from a dump on this machine or from Wikimedia's server.

    https://dumps.wikimedia.org/enwiki/                                a list of the dates there are
    https://dumps.wikimedia.org/enwiki/20261101/dumpstatus.json        what is ready, names of files, their digests
    …/enwiki-20261101-pages-articles-multistream1.xml-p1p41242.bz2     the pages 1 to 41,242

dumps.py reads the files and wikitext.py makes text of the mark-up. The latter takes almost all of the time; it is done
where a part is iterated, for the pages of that part alone. See https://meta.wikimedia.org/wiki/Data_dumps
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tf_llm.contracts import Page, Rejected, UserError
from tf_llm.crawl.cache import REMEDY, cache_folder
from tf_llm.crawl.download import DownloadConfig, Host, NotFoundError
from tf_llm.crawl.downloads import Downloads
from tf_llm.crawl.dumps import Article, read_articles
from tf_llm.crawl.files import Files
from tf_llm.crawl.wikitext import TooComplexError, import_parser, strip_wikitext
from tf_llm.files import write_atomically

logger = logging.getLogger(__name__)

ADDRESS = "https://dumps.wikimedia.org"
LATEST = "latest"
JOB = "articlesmultistreamdump"  # of a large wiki the parts, of a small one its only file
MAX_BYTES = 16 << 20  # of a page's XML; Wikipedia accepts 2 MiB of text, and XML writes some characters with six
DAY = 24 * 60 * 60
HASHED = 1 << 20


class WikipediaDump(Files):
    """A `contracts.Source`: the articles in dump files of Wikipedia or of another MediaWiki, as plain text.

    paths: `*-pages-articles*.xml.bz2`, multistream or not, .xml or .xml.gz: a file, a pattern, a folder, or several.
    max_bytes: pages whose XML is larger are rejected ("too large").

    A page's address is that of the article on the web, its date that of the revision. `rejections` has the reasons of
    dumps.py, and "wikitext too complex", "empty" (nothing but templates, tables and the like).

    Raises UserError where mwparserfromhell is not installed (the extra `wikipedia`), a path is missing or a pattern
    matches nothing, and where no file holds an article.

    >>> for page in WikipediaDump("enwiki-*-pages-articles-multistream*.bz2"): ...  # doctest: +SKIP
    """

    noun, example = "Wikipedia dump", "enwiki-*-pages-articles*.xml*.bz2"
    names = ("*.xml", "*.xml-p*p*")

    def __init__(self, paths: str | os.PathLike | Iterable[str | os.PathLike], *, max_bytes: int = MAX_BYTES):
        import_parser()
        super().__init__(paths, max_bytes=max_bytes)
        self._require_pages("articles of a Wikipedia", "Name files such as enwiki-…-pages-articles.xml.bz2", "no page")

    def _read(self, path: Path) -> Iterator[Article | Rejected]:
        return read_articles(path, self._address(path), self.max_bytes)

    def _convert(self, item: Article | Rejected) -> Page | Rejected:
        return make_page(item)

    def _settings(self) -> tuple[int]:
        return (self.max_bytes,)


class Wikipedia(Downloads):
    """The articles of one Wikipedia; a `contracts.Source`. Files are downloaded when iteration comes to them.

    Args:
        language: as in the address of the Wikipedia: "en", "es", "zh", "simple", …
        date: of the dump, such as "20261101"; "latest" is the newest that is complete.
        files: how many of the dump's files, from its first; None is all. Most Wikipedias have one, English some 70.
        cache_dir: the folder for what is downloaded; None is `tf_llm` in the user's cache folder.
        address: where the dumps are, or a mirror of them: https://dumps.wikimedia.org/mirrors.html
        interval: seconds between two requests.
        config: a `DownloadConfig`: patience with the network, an address for complaints.
        sleep: what waits; a test may count instead.

    `rejections` has the reasons of `WikipediaDump`. The SHA-1 of each file is checked once.

    Raises:
        UserError: mwparserfromhell is not installed (the extra `wikipedia`), an argument is out of range; when
            iterated: there is no such Wikipedia or date, a file is not what its digest says, the network fails.

    >>> for page in Wikipedia("simple"): ...  # doctest: +SKIP
    """

    def __init__(
        self,
        language: str = "en",
        date: str = LATEST,
        *,
        files: int | None = None,
        cache_dir: str | os.PathLike | None = None,
        address: str = ADDRESS,
        interval: float = 1.0,
        config: DownloadConfig | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ):
        import_parser()
        if not re.fullmatch(r"[a-z][a-z0-9-]{1,30}", language):
            raise UserError(f"expected the language of a Wikipedia, such as 'en'. Received: {language!r}. Correct it")
        if date != LATEST and not re.fullmatch(r"20\d{6}", date, re.ASCII):
            raise UserError(f"expected a date such as '20261101', or 'latest'. Received: {date!r}. Correct it")
        if files is not None and files < 1:
            raise UserError(f"expected at least 1 file. Received: files={files}. Ask for more, or leave it out")
        super().__init__(files)
        self.language, self.date, self.files, self.cache_dir = language, date, files, cache_dir
        self.wiki = f"{language.replace('-', '_')}wiki"
        self.host = Host(address, interval, config, sleep)

    @property
    def parts(self) -> int:
        """The number of files, which the server tells."""
        return len(self.list_files())

    def download(self) -> Iterator[Path]:
        """Yields the local path of each file, downloading what the cache does not hold."""
        for name, digest in self.list_files():
            path = self._folder() / name
            checked = path.with_name(f"{name}.sha1")
            if not (checked.exists() and path.exists()):
                self.host.download(f"{self.wiki}/{self.date}/{name}", path)
                require_digest(path, digest)
                write_atomically(checked, digest.encode(), REMEDY)
            yield path

    def list_files(self) -> list[tuple[str, str]]:
        """(name, SHA-1) of the dump's files, in the order of their pages.

        Raises:
            UserError: there is no such dump, or it is not complete yet.
        """
        date = self.name_date()
        files = self._list_dump(date)
        if not files:
            raise UserError(
                f"expected a complete dump of {self.wiki}. Received: {date}, which is on its way. Choose another date"
            )
        return files[self._mine]

    def name_date(self) -> str:
        """The date of this dump; of the latest one, its real date from now on."""
        if self.date == LATEST:
            self.date = self._find_latest()
            logger.info("the latest dump of %s is of %s", self.wiki, self.date)
        return self.date

    def _read(self, path: Path) -> Iterator[Article | Rejected]:
        return read_articles(path, path.name, MAX_BYTES)

    def _convert(self, item: Article | Rejected) -> Page | Rejected:
        return make_page(item)

    def _settle(self) -> None:
        self.name_date()

    def _settings(self) -> tuple[str, ...]:
        return self.language, self.date, f"{self.files or 'all'} files"

    def _find_latest(self) -> str:
        """The date of the newest complete dump. The list of dates is kept for a day."""
        path = self._folder().parent / "index.html"
        if path.exists() and time.time() - path.stat().st_mtime > DAY:
            path.unlink()
        try:
            self.host.download(f"{self.wiki}/", path)
        except NotFoundError as error:
            raise UserError(
                f"expected the language of a Wikipedia, as in its address. Received: {self.language!r}. Correct it"
            ) from error
        dates = sorted(set(re.findall(r'href="(20\d{6})/?"', path.read_text("ascii", "ignore"))), reverse=True)
        for date in dates:
            try:
                if self._list_dump(date):
                    return date
            except UserError as error:
                logger.info("%s: %s", date, error)
        path.unlink()
        raise UserError(
            f"expected a complete dump at {self.host.address}/{self.wiki}/. Received: {', '.join(dates) or 'no date'}. "
            "Try again later, or name another address"
        )

    def _list_dump(self, date: str) -> list[tuple[str, str]]:
        """(name, SHA-1) of the files of one dump; none while it is not complete."""
        path = self._folder(date) / "dumpstatus.json"
        try:
            self.host.download(f"{self.wiki}/{date}/dumpstatus.json", path)
        except NotFoundError as error:
            raise UserError(f"expected a dump of {self.wiki}. Received: {date}. Choose another date") from error
        # The names come from outside and become parts of paths.
        pattern = re.compile(rf"{self.wiki}-{date}-pages-articles-multistream(\d*)\.xml(-p\d+p\d+)?\.bz2", re.ASCII)
        try:
            job = json.loads(path.read_bytes())["jobs"][JOB]
            files = [(pattern.fullmatch(name), file["sha1"]) for name, file in job.get("files", {}).items()]
            files = sorted((int(name[1] or 0), name[0], str(digest)) for name, digest in files if name)
            is_complete = job["status"] == "done" and files
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            path.unlink()
            raise UserError(
                f"expected Wikimedia's list of files. Received: {path.name}: {error!r}. Try again, or check the address"
            ) from error
        if not is_complete:
            path.unlink()  # so that it is asked for again
            return []
        return [(name, digest) for _, name, digest in files]

    def _folder(self, date: str | None = None) -> Path:
        return cache_folder(self.cache_dir) / "wikipedia" / self.wiki / (date or self.date)


def make_page(item: Article | Rejected) -> Page | Rejected:
    """The text of an article, or why there is none."""
    if isinstance(item, Rejected):
        return item
    try:
        text = strip_wikitext(item.text, item.site.hidden)
    except TooComplexError as error:
        return Rejected(item.url, "wikitext too complex", str(error))
    if not text:
        return Rejected(item.url, "empty")
    content = text.encode("utf-8", "ignore")
    return Page(item.url, content, "text/plain", "utf-8", languages=item.site.languages, date=item.date)


def require_digest(path: Path, digest: str) -> None:
    """Raise UserError where a file has another SHA-1, and remove it."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha1").hexdigest()
    if found != digest.lower():
        path.unlink()
        raise UserError(
            f"expected {path.name} with the SHA-1 {digest}. Received: {found}. Download it again: the bytes were "
            "changed on their way, or the server has put another file in its place"
        )
