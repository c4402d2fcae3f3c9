"""The lexical side: tantivy's inverted index and BM25, https://docs.rs/tantivy

What tantivy is given are terms that analysis.py has made, with spaces between them, and what it is asked for are those
same terms: its query language, and its errors, are never met. A field of the index:

    address    the key, as it is                       title, body   terms; the body has those of the title, too
    words      plain words, for spelling               fields        what can be filtered and counted by (filters.py)
    names      the keys of these fields                day           the date as a number, 20260301
    row        which row of the vectors is its own     entry         the entry itself, to be shown

BM25 is Lucene's, with k1 = 1.2 and b = .75, for the title and for the body, and the sum of both. Lengths are kept in a
byte each, so scores differ from the formula's in the third digit.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tf_llm.apps.search.analysis import Analyser, list_plain_words
from tf_llm.apps.search.entries import Entry, write_entry
from tf_llm.apps.search.filters import flatten_values
from tf_llm.contracts import UserError

ANALYSED = "terms"  # tantivy's name for our way of cutting: at spaces
MEMORY = 64 << 20  # bytes of terms that a writer holds before it writes a segment
TITLE_WEIGHT = 1.0  # of a term in the title, beside 1 in the body


def load_tantivy():
    """The package. Raises UserError where it is not installed."""
    try:
        import tantivy
    except ImportError as error:
        raise UserError(
            'expected the package tantivy. Received: it is not installed. Run: pip install "tf_llm[search]"'
        ) from error
    return tantivy


def build_schema():
    """The fields of the index, see above."""
    builder = load_tantivy().SchemaBuilder()
    builder.add_text_field("address", tokenizer_name="raw", index_option="basic")
    for name in ("title", "body"):
        builder.add_text_field(name, tokenizer_name=ANALYSED, index_option="freq")
    builder.add_text_field("words", tokenizer_name=ANALYSED, index_option="basic")
    builder.add_text_field("names", tokenizer_name="raw", index_option="basic")
    builder.add_json_field("fields", fast=True, tokenizer_name="raw", index_option="basic")
    builder.add_integer_field("day", indexed=True, fast=True)
    builder.add_unsigned_field("row", indexed=True, fast=True)
    builder.add_bytes_field("entry", stored=True)
    return builder.build()


def make_lexical(folder: Path) -> None:
    """Makes an empty index of tantivy in a new folder."""
    folder.mkdir()
    load_tantivy().Index(build_schema(), path=str(folder))


def open_lexical(folder: Path):
    """tantivy's index in a folder.

    Raises:
        UserError: what lies there cannot be read.
    """
    tantivy = load_tantivy()
    try:
        index = tantivy.Index.open(str(folder))
        index.config_reader("manual")
        index.reload()
    except (ValueError, OSError) as error:
        raise UserError(
            f"expected an index of tantivy {tantivy.__version__} in {folder}. Received: {error}. Remove the folder of "
            "the index and index again"
        ) from error
    index.register_tokenizer(ANALYSED, tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.whitespace()).build())
    return index


def build_document(entry: Entry, row: int | None, analyser: Analyser):
    """A checked entry as tantivy takes it."""
    document = load_tantivy().Document()
    title = analyser.terms(entry.title)
    said = [value for values in entry.fields.values() for value in values if isinstance(value, str)]
    document.add_text("address", entry.address)
    document.add_text("title", " ".join(title))
    document.add_text("body", " ".join([*title, *analyser.terms(entry.text), *analyser.terms("\n".join(said))]))
    document.add_text("words", " ".join(list_plain_words(f"{entry.title}\n{entry.text}")))
    fields = flatten_values(entry.list_values())
    document.add_json("fields", fields)
    for name in fields:
        document.add_text("names", name)
    if entry.day:
        document.add_integer("day", entry.day)
    if row is not None:
        document.add_unsigned("row", row)
    document.add_bytes("entry", write_entry(entry))
    return document


def build_text_query(schema, terms: Sequence[str], title_weight: float = TITLE_WEIGHT):
    """Asks for documents that have any of the terms, scored by BM25."""
    tantivy = load_tantivy()
    clauses = []
    for term in terms:
        clauses.append((tantivy.Occur.Should, tantivy.Query.term_query(schema, "body", term, index_option="freq")))
        if title_weight:
            query = tantivy.Query.term_query(schema, "title", term, index_option="freq")
            clauses.append((tantivy.Occur.Should, tantivy.Query.boost_query(query, title_weight)))
    return tantivy.Query.boolean_query(clauses)


def build_row_query(schema, rows: Sequence[int]):
    """Asks for the documents of these rows of the vectors."""
    return load_tantivy().Query.term_set_query(schema, "row", list(rows))


def require(*queries):
    """Asks for what all queries find, scored by the first."""
    tantivy = load_tantivy()
    scored, *others = queries
    if not others:
        return scored
    others = [(tantivy.Occur.Must, tantivy.Query.const_score_query(query, 0.0)) for query in others]
    return tantivy.Query.boolean_query([(tantivy.Occur.Must, scored), *others])
