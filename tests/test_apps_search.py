"""The search engine as a whole: what goes in is found, what is changed is changed, whatever is asked."""

import doctest
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tantivy", reason="needs the extra: pip install 'tf_llm[search]'")
pytest.importorskip("rapidfuzz", reason="needs the extra: pip install 'tf_llm[search]'")
pytest.importorskip("Stemmer", reason="needs the extra: pip install 'tf_llm[search]'")

from tf_llm.apps.search import Between, Entry, SearchIndex, index, writing
from tf_llm.contracts import Rejected, UserError

TEAS = [
    Entry(f"https://{site}.example/{title}", title, text, language, date, {"price": price, **fields})
    for site, title, text, language, date, price, fields in (
        ("tea", "Sencha", "A green tea, steamed and rolled.", "en", "2026-01-05", 9.5, {"kind": "green"}),
        ("tea", "Gyokuro", "A green tea, grown in the shade.", "en", "2026-02-05", 30, {"kind": "green"}),
        ("tea", "Pu-erh", "A dark tea of Yunnan, pressed into cakes.", "en", "2025-02-01", 12, {"kind": "dark"}),
        (
            "other",
            "龙井茶",
            "龙井茶是绿茶。",
            "zh",
            "2026-02-01",
            20,
            {"kind": "green", "tags": ("pan-fired", "famous")},
        ),
    )
]


def embed(texts):
    """Vectors of letters: texts with the same letters are near."""
    return np.array([[text.lower().count(letter) + 0.01 for letter in "abcdefgh"] for text in texts], "float32")


@pytest.fixture(scope="module")
def teas(tmp_path_factory):
    found = SearchIndex.open(tmp_path_factory.mktemp("teas"))
    assert found.update(TEAS) == writing.Update(4, Counter())
    return found


def titles(results):
    return [hit.title for hit in results.hits]


def test_docstring_example():
    result = doctest.testmod(index)
    assert result.attempted >= 6 and result.failed == 0


def test_words_are_found_in_every_form(teas):
    assert titles(teas.search("GREEN teas"))[:2] == ["Sencha", "Gyokuro"]
    assert titles(teas.search("pressing")) == ["Pu-erh"]
    assert titles(teas.search("绿茶")) == titles(teas.search("茶")) == ["龙井茶"]
    assert titles(teas.search("famous")) == ["龙井茶"]  # what a field says is searched, too
    assert teas.search("coffee").hits == () and teas.search("coffee").total == 0


def test_a_hit_says_what_was_found_and_where(teas):
    (hit,) = teas.search("yunnan cake").hits
    assert (hit.address, hit.title, hit.language, hit.date) == (
        "https://tea.example/Pu-erh",
        "Pu-erh",
        "en",
        "2025-02-01",
    )
    assert hit.fields == {"price": (12.0,), "kind": ("dark",)}
    assert [hit.snippet.text[begin:end] for begin, end in hit.snippet.highlights] == ["Yunnan", "cakes"]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"site": "tea.example"}, "123"),
        ({"language": "zh"}, "4"),
        ({"language": ["zh", "en"]}, "1234"),
        ({"date": Between("2026-02", None)}, "24"),
        ({"date": Between(None, "2026-01")}, "13"),
        ({"date": "2026"}, "124"),
        ({"year": "2025"}, "3"),
        ({"kind": "green", "price": Between(10, 30)}, "24"),
        ({"price": Between(None, 12)}, "13"),
        ({"price": 12}, "3"),
        ({"price": "9.50"}, "1"),
        ({"tags": "famous"}, "4"),
        ({"kind": []}, ""),
        ({"unheard of": "x"}, ""),
        ({'kind:green" OR x': "y"}, ""),
        ({"kind": 'green" OR kind:dark'}, ""),
    ],
)
def test_filters_admit_what_they_say(teas, filters, found):
    results = teas.search("", filters)
    assert sorted(str([tea.title for tea in TEAS].index(title) + 1) for title in titles(results)) == list(found)
    assert results.total == len(found)
    assert set(titles(teas.search("tea", filters))) <= set(titles(results))


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"date": "yesterday"}, "date is expected as 2026, 2026-03 or 2026-03-01. Received: 'yesterday'"),
        ({"price": Between("cheap", None)}, "'price' is expected to be between numbers. Received: Between"),
        ({"price": {"from": 1}}, "'price' is expected as a text, a number, .* Received: {'from': 1}"),
        ({"": "x"}, "the name of a filter is expected to be a text. Received: ''"),
        ({"kind": ["x"] * 1001}, "'kind' is expected to have at most 1000 values. Received: 1001"),
    ],
)
def test_a_filter_that_is_none_says_so(teas, filters, message):
    with pytest.raises(UserError, match=message):
        teas.search("tea", filters)


def test_facets_count_what_was_found(teas):
    facets = teas.search("green").facets
    assert facets["kind"].values == (("green", 3),)  # its field says so of the third
    assert facets["site"].values == (("tea.example", 2), ("other.example", 1))
    assert (facets["price"].least, facets["price"].most) == (9.5, 30.0)
    everything = teas.search("").facets
    assert everything["kind"].values == (("green", 3), ("dark", 1))
    assert everything["year"].values == (("2026", 3), ("2025", 1))


def test_an_empty_query_lists_all_and_signs_find_nothing(teas):
    assert teas.search(" ").total == 4 and teas.search("?!").total == 0


QUERIES = [
    '"', "(", "title:(", "a AND", "NOT", "-x +", "[1 TO", "*", "?", "x^", "~2", "\\", "a:b:c", "/.*/", "<b>x</b>",
    "\x00", "\ud800", "😀", "绿茶 AND (", "' OR 1=1 --", "x" * 100_000, "tea " * 50_000, "\n", "٣", "ｔｅａ", "İ",
    "don't", "’", "_", "tea*",
]  # fmt: skip


@pytest.mark.parametrize("query", QUERIES, ids=range(len(QUERIES)))
def test_any_query_is_accepted(teas, query):
    results = teas.search(query)
    assert results.total <= 4
    for hit in results.hits:
        assert all(0 <= begin < end <= len(hit.snippet.text) for begin, end in hit.snippet.highlights)


def test_what_looks_like_syntax_is_words(teas):
    assert titles(teas.search("+green -tea")) == titles(teas.search("green tea"))
    assert titles(teas.search("ｔｅａ*")) == titles(teas.search("tea"))


def test_misspelt_words_are_noticed(teas):
    assert teas.search("grean tea").suggestion == "green tea"
    assert teas.search("green tea").suggestion is None


def test_pages_of_results_follow_each_other(teas):
    whole = titles(teas.search("tea", count=4))
    assert [titles(teas.search("tea", count=1, begin=begin))[0] for begin in range(3)] == whole[:3]
    assert teas.search("tea", begin=-1, count=-1).hits == () == teas.search("tea", begin=10**9).hits


def test_entries_are_replaced_and_removed(tmp_path):
    found = SearchIndex.open(tmp_path)
    found.update(TEAS)
    found.update([Entry(TEAS[0].address, "Kukicha", "Stems."), Entry(TEAS[0].address, "Hojicha", "Roasted.")])
    assert len(found) == 4 and not found.search("sencha").hits and not found.search("kukicha").hits
    assert titles(found.search("hojicha")) == ["Hojicha"]
    assert found.remove([TEAS[0].address, "https://nowhere.example/", "\ud800"]) == 1 and len(found) == 3
    assert found.read([TEAS[1].address, TEAS[0].address])[0].title == "Gyokuro"
    assert found.read([TEAS[0].address]) == [None]
    assert titles(SearchIndex.open(tmp_path).search("tea")) == titles(found.search("tea"))


def test_another_reader_sees_each_commit(tmp_path):
    reader, writer = SearchIndex.open(tmp_path), SearchIndex.open(tmp_path)
    assert reader.search("tea").total == 0
    writer.update(TEAS)
    assert reader.search("tea").total == 3
    writer.rebuild()
    writer.remove([TEAS[2].address])
    assert reader.search("tea").total == 2 and len(list(tmp_path.glob("index-*"))) == 1


def test_an_error_on_the_way_drops_what_was_not_committed(tmp_path):
    found = SearchIndex.open(tmp_path, embed)
    found.update(TEAS[:1])

    def stumble():
        yield from TEAS
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        found.update(stumble())
    assert len(found) == 1
    assert found.update(TEAS).written == 4 and len(found) == 4  # the lock is free again


def test_bad_entries_are_counted(tmp_path):
    found = SearchIndex.open(tmp_path)
    bad = [
        Entry("", "No address"), Entry("x" * 2_001, "Long address"), Entry("a", " ", "\x00"),
        Entry("b", "x" * 2_000_001), Entry("c", "Dated", date="12/31/2025"), Entry("d", "Odd", fields={"e": object()}),
        Entry("f", "Odd", fields={"": 1}), Entry("g", "Odd", fields={"date": "x"}), Entry("h", "Odd", fields=7),
        Entry("i", 7), "no entry", None, Rejected("j", "no reason"), Entry("k", "Odd", fields={"x": float("inf")}),
        Entry("l", "Odd", fields={"x": 10**400}),
    ]  # fmt: skip
    good = Entry(
        "m\ud800", "half \udfff a character", "\x01", "nonsense language", "2026", {"n": None, "o": [True, 7, "\ud800"]}
    )
    update = found.update([*bad, good])
    assert update.written == 1
    reasons = {
        "no address": 2,
        "no text": 1,
        "too large": 1,
        "bad date": 1,
        "bad field": 6,
        "no entry": 3,
        "no reason": 1,
    }
    assert update.rejections == reasons
    (hit,) = found.search("character").hits
    assert (hit.address, hit.title, hit.language, hit.fields) == ("m", "half  a character", "", {"o": ("true", 7.0)})
    json.dumps(hit.fields)


def test_vectors_find_what_words_do_not(tmp_path):
    found = SearchIndex.open(tmp_path, embed)
    found.update([Entry("a", "bead"), Entry("b", "hedge"), Entry("c", "cab")])
    results = found.search("dabe")
    assert results.total == 0 and titles(results)[0] == "bead"  # the same letters
    assert titles(found.search("hedge"))[0] == "hedge"
    assert found.search("dabe", {"site": "x"}).hits == ()
    found.weigh(0)
    assert found.search("dabe").hits == ()


def test_dense_hits_pass_the_filters_however_far_they_are(tmp_path):
    found = SearchIndex.open(tmp_path, embed)
    near = [Entry(f"near/{i}", "abcdefgh", fields={"kind": "near"}) for i in range(900)]
    found.update([*near, Entry("far", "hhhhhhh", fields={"kind": "far"})])
    found.update(near)  # as many rows again that nobody has any more
    snapshot = found._look()
    assert len(snapshot.vectors) == 1801
    assert titles(found.search("hgfedcba", {"kind": "far"})) == ["hhhhhhh"]
    assert len(set(snapshot.rank_dense(embed(["abcdefgh"])[0], None, 100))) == 100


def test_dense_ranking_is_that_of_all_cosines(tmp_path):
    rng = np.random.default_rng(0)
    vectors = {f"word{i}": rng.normal(size=8) for i in range(300)}
    found = SearchIndex.open(tmp_path, lambda texts: np.array([vectors.get(text, np.ones(8)) for text in texts]))
    found.update([Entry(name, name) for name in vectors])
    found.remove(list(vectors)[::3])
    kept = {name: vector / np.linalg.norm(vector) for i, (name, vector) in enumerate(vectors.items()) if i % 3}
    snapshot, asked = found._look(), vectors["word7"]
    ranked = [snapshot.read(place).address for place in snapshot.rank_dense(asked, None, 50)]
    assert ranked == sorted(kept, key=lambda name: -(kept[name] @ asked))[:50]


def test_another_encoder_is_noticed_and_may_take_over(tmp_path):
    words = SearchIndex.open(tmp_path)
    words.update(TEAS)
    with pytest.raises(
        UserError, match=r"expected vectors of this encoder in .*Received: an index of words alone\. Open "
    ):
        SearchIndex.open(tmp_path, embed)
    words.rebuild(embed)
    assert len(SearchIndex.open(tmp_path, embed)) == 4 and words.settings.dimensions == 8
    with pytest.raises(UserError, match=r"Received: those of another encoder\. Open the index without"):
        SearchIndex.open(tmp_path, lambda texts: embed(texts)[:, ::-1])
    reader = SearchIndex.open(tmp_path)
    assert titles(reader.search("yunnan")) == ["Pu-erh"]
    with pytest.raises(UserError, match=r"expected the encoder that made the vectors of .* Received: none\."):
        reader.update(TEAS)
    assert len(reader) == 4


def test_rows_that_nobody_has_are_cleared_away(tmp_path, monkeypatch):
    monkeypatch.setattr(index, "DEAD_ROWS", 5)
    found = SearchIndex.open(tmp_path, embed)
    for _ in range(4):
        found.update(TEAS)
    assert len(found._look().vectors) < 12 and len(found) == 4
    assert titles(found.search("sencha"))[0] == "Sencha"


def test_what_is_no_index_says_so(tmp_path):
    (tmp_path / "current.json").write_text("[]")
    with pytest.raises(UserError, match=r"expected an index in .* Received: a current.json that cannot be read"):
        SearchIndex.open(tmp_path)
    with pytest.raises(UserError, match=r"language is expected to be one of .*english.* Received: 'klingon'"):
        SearchIndex.open(tmp_path / "new", language="klingon")
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file"):
        SearchIndex.open(tmp_path / "file")


def test_damaged_files_are_an_error_with_a_remedy(tmp_path):
    SearchIndex.open(tmp_path).update(TEAS)
    (meta,) = tmp_path.glob("index-*/lexical/meta.json")
    meta.write_text("{")
    with pytest.raises(
        UserError, match=r"expected an index of tantivy .* Remove the folder of the index and index again"
    ):
        SearchIndex.open(tmp_path)


def test_threads_search_while_one_writes(tmp_path):
    found, faults = SearchIndex.open(tmp_path, embed), []
    found.update(TEAS)

    def ask():
        try:
            for _ in range(30):
                assert found.search("green tea").hits
        except BaseException as error:  # a thread's own would be lost
            faults.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(5):
        found.update([Entry(f"new/{number}", "new")])
    found.rebuild()
    for thread in threads:
        thread.join()
    assert not faults and len(found) == 9


def test_what_was_killed_just_before_its_commit_is_not_in_the_way(tmp_path):
    """All of an update is there but the renaming that counts; the next one has files of the same names."""
    found = SearchIndex.open(tmp_path, embed)
    found.update(TEAS)
    (meta,) = tmp_path.glob("index-*/lexical/meta.json")
    committed = meta.read_bytes()
    found.update([Entry(TEAS[0].address, "Kukicha", "Stems.")])
    meta.write_bytes(committed)
    assert titles(SearchIndex.open(tmp_path).search("sencha")) == ["Sencha"]
    again = SearchIndex.open(tmp_path, embed)
    again.update([Entry(TEAS[0].address, "Hojicha", "Roasted.")])
    assert len(again) == 4 and titles(SearchIndex.open(tmp_path).search("hojicha roasted")) == ["Hojicha"]
    assert not SearchIndex.open(tmp_path).search("sencha kukicha").total


# === In processes of their own ===

REPOSITORY = Path(__file__).resolve().parent.parent


def launch(*arguments):
    command = [sys.executable, *map(str, arguments)]
    environment = os.environ | {"TF_LLM_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


def test_kills_lose_nothing():
    result = launch(REPOSITORY / "examples" / "benchmarks" / "crash_safe_search.py", "--kills=2")
    assert result.returncode == 0, result.stdout + result.stderr
    assert json.loads(result.stdout.splitlines()[-1])["value"] == 2 and "2 of 2: nothing lost" in result.stdout


@pytest.mark.thorough
def test_products_are_found_in_a_terminal(tmp_path):
    (tmp_path / "shop.csv").write_text(
        "name,price,brand\nTrail shoes,89.5,Acme\nRoad shoes,120,Bore\nRain jacket,9,Acme\n"
    )
    script, folder = REPOSITORY / "examples" / "search.py", f"--folder={tmp_path / 'index'}"
    result = launch(script, folder, f"--catalogue={tmp_path / 'shop.csv'}", "--query=shose", "--filter=brand=Acme")
    assert result.returncode == 0, result.stderr
    assert "Update(written=3" in result.stdout and "did you mean: shoes" in result.stdout
    result = launch(script, folder, "--query=shoes", "--filter=brand=Acme")
    assert "1 entries" in result.stdout and "Trail \033[1mshoes\033[0m" in result.stdout
    assert "price: 89.5 (1)" in result.stdout
