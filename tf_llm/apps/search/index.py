"""A search engine in a folder: entries in, the best ones for a query out.

    >>> import tempfile
    >>> index = SearchIndex.open(tempfile.mkdtemp())
    >>> index.update([
    ...     Entry("https://tea.example/green", "Green tea", "Steamed, then dried.", language="en"),
    ...     Entry("https://tea.example/black", "Black tea", "Oxidised, then dried.", language="en"),
    ... ])
    Update(written=2, rejections=Counter())
    >>> results = index.search("black tea", filters={"site": "tea.example"})
    >>> [(hit.title, hit.snippet.text) for hit in results.hits]
    [('Black tea', 'Oxidised, then dried.'), ('Green tea', 'Steamed, then dried.')]
    >>> results.total, results.facets["language"].values
    (2, (('en', 2),))
    >>> index.search("oxydised").suggestion
    'oxidised'

With an encoder (`embed`), what is near in meaning is found beside what has the same words, and both rankings become one
(fusion.py). Without one, it is a search by words. Every query is a good query: there is no syntax to get wrong.

Updates are safe: several processes may read while one writes; one that is killed leaves the index as its last commit
left it; the next writer waits for its turn.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from tf_llm.apps.search import generations
from tf_llm.apps.search.analysis import Analyser
from tf_llm.apps.search.entries import Entry, Value
from tf_llm.apps.search.filters import Facet, Filters, build_filter, count_facets
from tf_llm.apps.search.fusion import fuse
from tf_llm.apps.search.generations import Settings
from tf_llm.apps.search.lexical import build_text_query, make_lexical, require
from tf_llm.apps.search.snapshots import Place, Snapshot
from tf_llm.apps.search.snippets import Snippet, find_snippet
from tf_llm.apps.search.vectors import normalise
from tf_llm.apps.search.writing import TOGETHER, Embed, Update, Writer, join_text, write_entries
from tf_llm.contracts import Rejected, UserError
from tf_llm.files import lock_folder

DEPTH = 100  # of each ranking that is fused
MAX_COUNT = 1_000  # hits of a search, those that are passed over included
DEAD_ROWS = 10_000  # of vectors, from which on it is worth making a new generation without them
PROBE = "What vectors does this encoder make? 你好"
PROBE_DISTANCE = 0.05  # between vectors of the probe by the same weights on different machines, with much room


@dataclasses.dataclass(frozen=True, slots=True)
class Hit:
    """One entry that was found. A score means something within one search only."""

    address: str
    title: str
    snippet: Snippet
    score: float
    fields: Mapping[str, tuple[Value, ...]]
    language: str = ""
    date: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Results:
    """What a search found.

    `total` is how many entries have some word of the query and pass the filters, and `facets` counts these; where it is
    0, hits are near in meaning alone. `suggestion` is the query as it may have been meant, or None.
    """

    hits: tuple[Hit, ...]
    facets: Mapping[str, Facet]
    suggestion: str | None
    total: int


class SearchIndex:
    """A folder that is searched. It is made by `open`; threads may share it."""

    def __init__(self, folder: Path, embed: Embed | None):
        self.folder, self._embed = folder, embed
        self._lock, self._mark = threading.Lock(), ()
        self._snapshot: Snapshot
        self._analyser = Analyser(self.settings.language)

    @classmethod
    def open(cls, folder, embed: Embed | None = None, language: str = "english", dense_weight: float = 1.0):
        """The index in a folder, or a new one.

        Args:
            folder: is made where there is none.
            embed: N texts -> vectors [N, D], such as `encoder.Encoder`. It must be the one that made the vectors of the
                index. Without it, an index with vectors can be searched by words, and not written to.
            language: of a new index: whose word endings are cut off, see analysis.py.
            dense_weight: of a new index: how much the dense ranking counts beside the lexical one.

        Raises:
            UserError: there is something else in the folder; it has vectors of another encoder, or none; a package is
                missing.
        """
        folder = Path(folder)
        Analyser(language)  # before anything is written
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write {folder}: {error.strerror or error}; choose another folder") from error
        with lock_folder(folder):
            if generations.find_current(folder) is None:
                settings = Settings(language=language, dense_weight=dense_weight, **describe_encoder(embed))
                generation = generations.begin_generation(folder, settings)
                make_lexical(generation / generations.LEXICAL)
                generations.use_generation(generation)
        index = cls(folder, embed)
        if embed is not None:
            check_encoder(folder, embed, index.settings)
        return index

    def __len__(self) -> int:
        return len(self._look())

    @property
    def settings(self) -> Settings:
        """What the index was made with."""
        return self._look().settings

    # === Search ===

    def search(
        self, query: str, filters: Filters | None = None, count: int = 10, begin: int = 0, with_facets: bool = True
    ) -> Results:
        """The entries that answer a query best.

        Args:
            query: any text. An empty one lists all entries that pass the filters.
            filters: {name: what is admitted}, see filters.py.
            count: how many hits, at most.
            begin: how many to pass over first, for a second page.
            with_facets: whether values are counted, which takes some milliseconds of a large index.

        Raises:
            UserError: a filter is none.
        """
        snapshot = self._look()
        begin, last = max(begin, 0), min(max(begin, 0) + max(count, 0), MAX_COUNT)
        admitted = [build_filter(snapshot.index, name, wanted) for name, wanted in (filters or {}).items()]
        terms = self._analyser.query_terms(query)
        matching = require(match_terms(snapshot.schema, query, terms), *admitted)
        lexical, total = snapshot.rank_lexical(matching, max(last, DEPTH))
        ranked, vector = lexical, self._embed_query(query, snapshot.settings) if terms else None
        if vector is not None:
            dense = snapshot.rank_dense(vector, require(*admitted) if admitted else None, max(last, DEPTH))
            ranked = fuse([[place for place, _ in lexical], dense], [1.0, snapshot.settings.dense_weight])
        hits = tuple(self._show(snapshot, place, score, terms) for place, score in ranked[begin:last])
        facets = count_facets(snapshot.searcher, matching, snapshot.facets) if with_facets else {}
        return Results(hits, facets, snapshot.spelling.suggest(query) if terms else None, total)

    def _embed_query(self, query: str, settings: Settings) -> np.ndarray | None:
        """Its vector [D]; None where the dense side has nothing to say."""
        if self._embed is None or not settings.dimensions or settings.dense_weight <= 0:
            return None
        vector = normalise(np.asarray(self._embed([query]), "float32"))[0]
        return vector if vector.any() else None

    def _show(self, snapshot: Snapshot, place: Place, score: float, terms: Sequence[str]) -> Hit:
        entry = snapshot.read(place)
        snippet = find_snippet(entry.text or entry.title, set(terms), self._analyser)
        return Hit(entry.address, entry.title, snippet, score, entry.fields, entry.language, entry.date)

    def rank_sides(self, query: str, count: int = DEPTH) -> tuple[list[str], list[str]]:
        """Addresses of the lexical and of the dense ranking, before they become one: for those who weigh them."""
        snapshot, terms = self._look(), self._analyser.query_terms(query)
        lexical, _ = snapshot.rank_lexical(match_terms(snapshot.schema, query, terms), count)
        vector = normalise(np.asarray(self._embed([query]), "float32"))[0]
        dense = snapshot.rank_dense(vector, None, count) if vector.any() else []
        return [snapshot.read(place).address for place, _ in lexical], [snapshot.read(place).address for place in dense]

    def read(self, addresses: Sequence[str]) -> list[Entry | None]:
        """The entries with these addresses; None for those that are not there."""
        from tantivy import Query

        snapshot, entries = self._look(), []
        for address in addresses:
            query = Query.term_query(snapshot.schema, "address", address.encode("utf-8", "ignore").decode())
            found, _ = snapshot.rank_lexical(query, 1)
            entries.append(snapshot.read(found[0][0]) if found else None)
        return entries

    def list_entries(self) -> list[Entry]:
        """All entries, in no order."""
        snapshot = self._look()
        return list(map(snapshot.read, snapshot.list_places()))

    # === Change ===

    def update(self, entries: Iterable[Entry | Rejected]) -> Update:
        """Adds entries, or replaces those with the same address.

        Args:
            entries: of a `Rejected` among them, which readers of pages and tables yield, the reason is counted.

        Returns:
            How many were written, and why others were not. Each 5,000 are committed together: killed, it leaves what
            was committed, and the same call again does the rest.

        Raises:
            UserError: the encoder is missing, or the disk is full. What was not committed is dropped.
        """
        with self._write() as (snapshot, writer):
            if snapshot.settings.dimensions and self._embed is None:
                raise UserError(
                    f"expected the encoder that made the vectors of {self.folder}. Received: none. Open the index with "
                    "it"
                )
            update = write_entries(writer, entries, self._embed if snapshot.settings.dimensions else None)
        if len(self._look().vectors) - len(self) > max(DEAD_ROWS, len(self)):
            self.rebuild()
        return update

    def remove(self, addresses: Iterable[str]) -> int:
        """Removes the entries with these addresses. Returns how many there were."""
        with self._write() as (snapshot, writer):
            before = len(snapshot)
            writer.remove(addresses)
            writer.commit()
        return before - len(self)

    def rebuild(self, embed: Embed | None = None, dense_weight: float | None = None) -> None:
        """Makes the index anew from its own entries and puts it in place of the old one, in one step.

        Args:
            embed: makes new vectors of all entries, where there were others or none; None copies those there are.
            dense_weight: the new one; None keeps the old one.
        """
        with lock_folder(self.folder):
            old = self._look()
            settings = dataclasses.replace(old.settings, **describe_encoder(embed) if embed else {})
            if dense_weight is not None:
                settings = dataclasses.replace(settings, dense_weight=dense_weight)
            generation = generations.begin_generation(self.folder, settings)
            make_lexical(generation / generations.LEXICAL)
            places = old.list_places()
            with Writer(generation, settings, self._analyser) as writer:
                for begin in range(0, len(places), TOGETHER):
                    batch = places[begin : begin + TOGETHER]
                    entries, vectors = list(map(old.read, batch)), None
                    if embed:
                        vectors = embed(list(map(join_text, entries)))
                    elif settings.dimensions:
                        vectors = old.vectors[old.list_rows(batch)]
                    writer.write(entries, vectors)
                writer.commit()
            generations.use_generation(generation)
            self._embed = embed or self._embed

    def weigh(self, dense_weight: float) -> None:
        """Changes how much the dense ranking counts beside the lexical one; 0 leaves it out."""
        with lock_folder(self.folder):
            snapshot = self._look()
            generations.write_settings(
                snapshot.generation, dataclasses.replace(snapshot.settings, dense_weight=dense_weight)
            )

    # === What it is made of ===

    def _look(self) -> Snapshot:
        """The newest commit, whoever made it."""
        with self._lock:
            while True:
                generation = generations.find_current(self.folder)
                if generation is None:
                    raise UserError(f"expected an index in {self.folder}. Received: it was removed. Index again")
                mark = generations.mark_state(self.folder, generation)
                try:
                    if mark != self._mark:
                        self._snapshot, self._mark = Snapshot(generation), mark
                    return self._snapshot
                except UserError:
                    if generations.find_current(self.folder) == generation:
                        raise
                    # Another process has put a new generation in its place meanwhile: look again.

    @contextlib.contextmanager
    def _write(self) -> Iterator[tuple[Snapshot, Writer]]:
        """The index as it is and a writer to it, for this process alone. What was killed before is cleared away."""
        with lock_folder(self.folder):
            snapshot = self._look()
            generations.remove_others(snapshot.generation)
            with Writer(snapshot.generation, snapshot.settings, self._analyser) as writer:
                yield snapshot, writer


def match_terms(schema, query: str, terms: Sequence[str]):
    """The query of tantivy for what was typed: all entries for nothing, none where it has no word."""
    from tantivy import Query

    if terms:
        return build_text_query(schema, terms)
    return Query.empty_query() if query.strip() else Query.all_query()


def describe_encoder(embed: Embed | None) -> dict[str, object]:
    """What the settings of an index say of an encoder."""
    if embed is None:
        return {}
    vector = normalise(np.asarray(embed([PROBE]), "float32"))[0]
    return {"dimensions": len(vector), "probe": tuple(map(float, vector))}


def check_encoder(folder: Path, embed: Embed, settings: Settings) -> None:
    """Raises UserError where the vectors of the index are not those of this encoder."""
    probe = describe_encoder(embed)["probe"]
    is_other = len(probe) != len(settings.probe) or np.linalg.norm(np.subtract(probe, settings.probe)) > PROBE_DISTANCE
    if is_other:
        received = "those of another encoder" if settings.dimensions else "an index of words alone"
        raise UserError(
            f"expected vectors of this encoder in {folder}. Received: {received}. Open the index without an encoder, "
            "and call rebuild(embed) to make new ones"
        )
