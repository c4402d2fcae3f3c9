"""The index as one commit left it: what a search reads, whatever is written meanwhile.

`Snapshot` holds tantivy's searcher and the rows of vectors that were there when it was opened. A later commit adds rows
behind them and documents that this searcher does not see, so both sides stay those of the same moment.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from tf_llm.apps.search.entries import Entry, read_entry
from tf_llm.apps.search.filters import choose_facets
from tf_llm.apps.search.generations import LEXICAL, VECTORS, load_settings
from tf_llm.apps.search.lexical import build_row_query, open_lexical, require
from tf_llm.apps.search.spelling import Spelling
from tf_llm.apps.search.vectors import rank_rows, rank_scores, read_vectors

FEW = 5_000  # documents that a filter admits, and that are compared one by one
Place = tuple[int, int]  # of a document in one searcher: segment, number


class Snapshot:
    """What one commit left of a generation.

    Args:
        generation: its folder.
    """

    def __init__(self, generation: Path):
        self.generation = generation
        self.settings = load_settings(generation)
        self.index = open_lexical(generation / LEXICAL)
        self.schema, self.searcher = self.index.schema, self.index.searcher()
        # After the searcher: there may be rows that it does not know, and none that it knows is missing.
        self.vectors = np.zeros([0, 0], "float32")
        if self.settings.dimensions:
            self.vectors = read_vectors(generation / VECTORS, self.settings.dimensions)

    def __len__(self) -> int:
        return self.searcher.num_docs

    @functools.cached_property
    def spelling(self) -> Spelling:
        """By the words of all entries; it is made when it is first asked for."""
        return Spelling(dict(self.searcher.terms_with_prefix("words", "")))

    def rank_lexical(self, query, count: int) -> tuple[list[tuple[Place, float]], int]:
        """(([place, BM25], best first), how many documents there are) of a query of tantivy."""
        result = self.searcher.search(query, limit=max(count, 1))
        return [((address.segment_ord, address.doc), score) for score, address in result.hits], result.count

    def rank_dense(self, vector: np.ndarray, admitted, count: int) -> list[Place]:
        """The places of the documents nearest to a vector [D] among those that a query of tantivy admits, or all.

        Where few are admitted, their rows alone are compared. Else rows of entries that were replaced, and of entries
        that are not admitted, stand between: so more rows are looked up until there are enough documents.
        """
        number = len(self) if admitted is None else self.searcher.search(admitted, limit=1).count
        if number <= FEW and admitted is not None:
            found = [address for _, address in self.searcher.search(admitted, limit=max(number, 1)).hits]
            rows = np.array([row for row in self.searcher.fast_field_values("row", found) if row is not None], int)
            best = rows[rank_rows(self.vectors[rows], vector, count)]
            return self._find_places(best, None)[:count]
        scores, asked = self.vectors @ np.asarray(vector, "float32"), 2 * count * max(1, len(self) // max(number, 1))
        while True:
            places = self._find_places(rank_scores(scores, asked), admitted)
            if len(places) >= count or asked >= len(scores):
                return places[:count]
            asked *= 8

    def _find_places(self, rows: np.ndarray, admitted) -> list[Place]:
        """Where the documents of these rows are, in this order, as far as there are such that are admitted."""
        query = build_row_query(self.schema, rows.tolist())
        query = require(query, admitted) if admitted is not None else query
        found = [address for _, address in self.searcher.search(query, limit=max(len(rows), 1), count=False).hits]
        owners = self.searcher.fast_field_values("row", found)
        places = {row: (place.segment_ord, place.doc) for row, place in zip(owners, found, strict=True)}
        return [places[row] for row in rows.tolist() if row in places]

    @functools.cached_property
    def facets(self) -> dict[str, bool]:
        """What `filters.count_facets` is to count."""
        return choose_facets(self.searcher)

    def read(self, place: Place) -> Entry:
        """The entry at a place."""
        from tantivy import DocAddress

        return read_entry(bytes(self.searcher.doc(DocAddress(*place))["entry"][0]))

    def list_places(self) -> list[Place]:
        """Where all entries are."""
        from tantivy import Query

        return [place for place, _ in self.rank_lexical(Query.all_query(), len(self))[0]]

    def list_rows(self, places: list[Place]) -> list[int | None]:
        """Their rows of the vectors."""
        from tantivy import DocAddress

        return self.searcher.fast_field_values("row", [DocAddress(*place) for place in places])
