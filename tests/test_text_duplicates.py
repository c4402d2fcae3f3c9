"""Duplicates: the first of a kind stays, whatever the parts, and a slow and simple reference agrees."""

import doctest
import itertools
import random
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_llm.contracts import Document
from tf_llm.crawl.warc import Warc
from tf_llm.text import duplicate_keys, duplicates
from tf_llm.text.duplicate_keys import DuplicatesConfig, Keys, KeyWriter, hash_text, normalize_url
from tf_llm.text.duplicates import (
    REASONS,
    ROUNDS,
    candidate_pairs,
    connect,
    find_first,
    find_repeated_lines,
    find_repeated_pages,
    mark_repeats,
    remove_lines,
)
from tf_llm.text.html import strip_html
from tf_llm.text.minhash import count_needed, mix, normalize

ALL = DuplicatesConfig(names="addresses,pages,near,lines")


def collect(pages, config=ALL):
    writer = KeyWriter(config)
    for url, text in pages:
        writer.add(url, text)
    return Keys(**writer.close())


def judge(texts, names, **settings):
    """Reasons of one part whose pages have addresses of their own."""
    config = DuplicatesConfig(names=names, **settings)
    (verdicts,) = find_repeated_pages([collect([(f"page {n}", text) for n, text in enumerate(texts)], config)], config)
    return [REASONS[verdict - 1] if verdict else None for verdict in verdicts]


def write_words(count, seed=0):
    return " ".join(f"w{number}" for number in random.Random(seed).sample(range(10_000), count))


@pytest.mark.parametrize("module", [duplicates, duplicate_keys])
def test_docstring_examples(module):
    result = doctest.testmod(module)
    assert result.attempted and result.failed == 0


SAME = [
    "http://Example.com/Tea",
    "https://example.com/Tea",
    "http://www.example.com/Tea/",
    "HTTP://WWW.EXAMPLE.COM:80/Tea#top",
    "https://example.com:443/Tea?",
    " http://example.com/Tea?utm_source=mail&utm_medium=x\n",
]
OTHER = [
    "http://example.com/tea",
    "http://example.com:8080/Tea",
    "http://example.com:443/Tea",
    "http://example.com/Tea?page=2",
    "http://example.com/?Tea",
    "http://m.example.com/Tea",
    "http://example.com/Tea#!/second",
    "ftp://example.com/Tea",
    "texts.jsonl#1",
    "texts.jsonl#2",
    "http://[broken/Tea",
    "http://",
]


def test_addresses_of_one_page_are_one():
    assert {normalize_url(url) for url in SAME} == {"example.com/Tea"}
    assert len({normalize_url(url) for url in SAME + OTHER}) == 1 + len(OTHER)
    keys = collect([(url, f"text {n}") for n, url in enumerate(SAME + OTHER)])
    (verdicts,) = find_repeated_pages([keys], DuplicatesConfig(names="addresses"))
    assert verdicts.tolist() == [0] + [1] * (len(SAME) - 1) + [0] * len(OTHER)


@settings(deadline=None)
@given(st.text("aB.:/?#!&=0u_m[]@%", max_size=30))
def test_any_address_has_one_key_under_http_and_https(rest):
    assert normalize_url(f"http://h{rest}") == normalize_url(f" https://WWW.H{rest}")
    normalize_url(rest)


def test_pages_with_the_same_text_are_one():
    texts = ["The cat sat.", "the  cat\n sat. ", "The cat sat!", "THE CAT SAT.", ""]
    assert judge(texts, "pages") == [None, "duplicate page", None, "duplicate page", None]


def test_pages_with_much_the_same_text_are_one():
    words = write_words(400).split()
    texts = [
        " ".join(words),
        " ".join([*words[:200], "a", "new", "sentence", *words[200:]]),  # J = (396 - 4) / (396 + 7)
        write_words(400, seed=1),
        " ".join(words[:100] + words[300:]),
        " ".join(words[10:]),
    ]
    found = "near-duplicate page"
    assert judge(texts, "near") == [None, found, None, None, found]
    assert judge(texts, "near", jaccard=0.99) == [None] * 5
    assert judge(texts, "near", jaccard=0.4) == [None, found, None, found, found]


def test_near_duplicates_are_told_by_characters_where_there_are_no_spaces():
    letters = random.Random(0).sample([chr(code) for code in range(0x4E00, 0x9000)], 300)
    text, other = "".join(letters), "".join(random.Random(1).sample(letters, 300))
    edited = "".join(letters[:100] + letters[102:])
    assert judge([text, other, edited], "near") == [None, None, "near-duplicate page"]


def test_a_chain_of_near_duplicates_leaves_its_first_page():
    words = write_words(2_000).split()
    texts = [" ".join(words[begin : begin + 1_000]) for begin in range(0, 1_000, 50)]
    assert judge(texts, "near") == [None] + ["near-duplicate page"] * 19


def test_kinds_take_their_turns():
    """What an earlier kind removes has no say in a later one."""
    words = write_words(300).split()
    near = " ".join(words[:150] + words[151:])
    pages = [("a.example", "one"), ("a.example", " ".join(words)), ("b.example", near), ("c.example", near.upper())]
    config = DuplicatesConfig(names="near,pages,addresses")
    assert find_repeated_pages([collect(pages)], config)[0].tolist() == [0, 1, 0, 2]
    assert find_repeated_pages([collect(pages)], DuplicatesConfig(names="near"))[0].tolist() == [0, 0, 3, 3]
    assert find_repeated_pages([collect(pages)], DuplicatesConfig(names=""))[0].tolist() == [0] * 4


def test_lines_stay_once_in_the_first_page_that_stays():
    parts = [
        collect([("1", "Menu\nTea\n\n menu \nend"), ("2", "tea\nonly here"), ("2", "dropped\nmore")]),
        collect([]),
        collect([("3", "DROPPED\n\nTea\nnew\nnew"), ("4", ""), ("5", "Only here\nfresh")]),
    ]
    verdicts = find_repeated_pages(parts, ALL)
    assert [verdict.tolist() for verdict in verdicts] == [[0, 0, 1], [], [0, 0, 0]]
    repeated = find_repeated_lines(parts, verdicts)
    first, empty, last = (mask.tolist() for mask in repeated)
    assert first == [False, False, False, True, False, True, False, False, False] and empty == []
    assert last == [False, False, True, False, True, False, True, False]
    assert remove_lines("DROPPED\n\nTea\nnew\nnew", repeated[2][:5]) == "DROPPED\n\nnew"
    assert remove_lines("Only here\n  \nfresh", np.array([True, False, False])) == "fresh"
    with pytest.raises(ValueError, match=r"repeated expected one value a line, 2\. Received: 3"):
        remove_lines("a\nb", np.zeros(3, bool))


def test_of_ten_thousand_copies_one_is_kept_quickly():
    text = write_words(100)
    edited = text.replace(" ", " new ", 1)
    for pages, names, reason in ((text, "pages", 2), (text, "near", 3), (edited, "near", 3)):
        config = DuplicatesConfig(names=names)
        one, copy = collect([("", text)], config), collect([("", pages)], config)
        # The keys of a page do not depend on the others: repeat them in place of the page.
        many = Keys(**{name: np.repeat(value[:1], 10_000, axis=0) for name, value in vars(copy).items()})
        begin = time.process_time()
        first, rest = find_repeated_pages([one, many], config)
        assert time.process_time() - begin < 5  # 10,000 squared comparisons take minutes
        assert first.tolist() == [0] and (rest == reason).all() and len(rest) == 10_000


def test_a_page_that_only_looks_alike_does_not_hide_those_that_are():
    """Page 0 falls into the bucket of the others and is like none of them."""
    kinds = np.array([0, 1, 2, 1, 2, 1, 1])
    pairs = candidate_pairs(np.zeros(7), np.arange(7), lambda ones, others: kinds[ones] == kinds[others])
    assert pairs.tolist() == [[1, 3], [1, 5], [1, 6], [2, 4]]


# A slow and simple reference, on texts rather than keys but for the sketches.


def refer_pages(pages, config):
    verdicts = [0] * len(pages)
    for verdict, name, normal in (
        (1, "addresses", lambda page: normalize_url(page[0])),
        (2, "pages", lambda page: normalize(page[1])),
    ):
        if name in config.kinds:
            kept = [n for n in range(len(pages)) if not verdicts[n]]
            for n in kept:
                if normal(pages[n]) and any(normal(pages[n]) == normal(pages[m]) for m in kept if m < n):
                    verdicts[n] = verdict
    if "near" in config.kinds:
        keys = collect(pages, config)
        needed = count_needed(config.jaccard, config.sketch)
        alike = {n: {n} for n in range(len(pages)) if not verdicts[n] and pages[n][1].strip()}
        for column in keys.bands.T:
            for value in {column[n] for n in alike}:
                bucket = [n for n in alike if column[n] == value]
                for _ in range(ROUNDS):
                    first, *rest = bucket or [None]
                    bucket = [n for n in rest if (keys.signatures[n] == keys.signatures[first]).sum() < needed]
                    for n in set(rest) - set(bucket):
                        joined = alike[first] | alike[n]
                        for m in joined:
                            alike[m] = joined
        for n, group in alike.items():
            if n > min(group):
                verdicts[n] = 3
    return verdicts


def refer_lines(pages, verdicts):
    seen, repeated = set(), []
    for (_, text), verdict in zip(pages, verdicts, strict=True):
        for line in text.split("\n"):
            line = line.lower().strip()
            repeated.append(not verdict and line in seen)
            if not verdict and line:
                seen.add(line)
    return repeated


WORDS = write_words(40).split()
LINES = [
    "",
    " ",
    "Tea",
    "tea ",
    "A cat sat",
    "a cat  sat",
    "日本語のテキスト",
    *(" ".join(WORDS[n:]) for n in range(6)),
]
PAGES = st.lists(
    st.tuples(
        st.sampled_from(["", "http://a.example/", "https://www.a.example", "b", "c", "d"]),
        st.lists(st.sampled_from(LINES), max_size=4).map("\n".join),
    ),
    max_size=12,
)


@settings(deadline=None, max_examples=100)
@given(
    pages=PAGES,
    cuts=st.lists(st.integers(0, 12), max_size=3).map(sorted),
    kinds=st.sets(st.sampled_from(["addresses", "pages", "near", "lines"])),
    jaccard=st.sampled_from([0.3, 0.8, 1.0]),
)
def test_it_agrees_with_the_reference_however_the_corpus_is_cut(pages, cuts, kinds, jaccard):
    config = DuplicatesConfig(names=",".join(kinds), jaccard=jaccard, sketch=16)
    cuts = [0, *(min(cut, len(pages)) for cut in cuts), len(pages)]
    parts = [collect(pages[begin:end], config) for begin, end in itertools.pairwise(cuts)]
    verdicts = find_repeated_pages(parts, config)
    assert [len(verdict) for verdict in verdicts] == [len(part) for part in parts]
    assert np.concatenate(verdicts).tolist() == refer_pages(pages, config)
    repeated = find_repeated_lines(parts, verdicts)
    expected = refer_lines(pages, np.concatenate(verdicts)) if "lines" in kinds else []
    assert np.concatenate(repeated).tolist() == expected


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=60))
def test_groups_are_the_connected_components(pairs):
    groups = np.arange(31)
    for some in (pairs[:20], pairs[20:]):
        connect(groups, np.array(some, np.int64).reshape(-1, 2))
    sets = [{n} for n in range(31)]
    for one, other in pairs:
        joined = sets[one] | sets[other]
        for member in joined:
            sets[member] = joined
    assert groups.tolist() == [min(group) for group in sets]


@settings(deadline=None)
@given(keys=st.lists(st.integers(0, 5)), seed=st.integers(0, 3))
def test_the_first_is_the_smallest_id_in_any_order(keys, seed):
    ids = np.random.default_rng(seed).permutation(len(keys))
    first = find_first(np.array(keys, np.uint64), ids)
    for key, found in zip(keys, first, strict=True):
        assert found == min(id for id, other in zip(ids, keys, strict=True) if other == key)


def test_ranges_of_keys_bound_the_memory_and_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    keys = mix(rng.integers(0, 150_000, 200_000).astype(np.uint64) + np.uint64(1))
    columns = np.split(keys, [50_000, 50_000, 120_000])
    kept = rng.random(200_000) < 0.8
    peaks, outcomes = [], []
    for limit in (1 << 21, 10_000):
        monkeypatch.setattr(duplicates, "SORTED_KEYS", limit)
        tracemalloc.start()
        outcomes.append(mark_repeats(columns, kept))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert np.array_equal(*outcomes) and peaks[1] < peaks[0] / 5
    _, firsts = np.unique(keys[kept], return_index=True)
    assert outcomes[0].sum() == kept.sum() - len(firsts) and not outcomes[0][np.flatnonzero(kept)[firsts]].any()


def test_keys_can_lie_in_files(tmp_path):
    pages = [(f"page {n % 7}", f"{write_words(50, n % 5)}\nline {n % 3}") for n in range(20)]
    parts = [collect(pages), collect([]), collect(pages[:1], DuplicatesConfig(names=""))]
    for config, keys in ((ALL, parts[:2]), (DuplicatesConfig(names=""), parts[2:])):
        loaded = []
        for number, part in enumerate(keys):
            for name, value in vars(part).items():
                np.save(tmp_path / f"{name}{number}.npy", value, allow_pickle=False)
            fields = {name: np.load(tmp_path / f"{name}{number}.npy", "r", allow_pickle=False) for name in vars(part)}
            loaded.append(Keys(**fields))
            assert loaded[-1].bands.flags.f_contiguous and len(loaded[-1]) == len(part)
        expected = find_repeated_pages(keys, config)
        assert np.array_equal(np.concatenate(find_repeated_pages(loaded, config)), np.concatenate(expected))
        for found, lines in zip(
            find_repeated_lines(loaded, expected), find_repeated_lines(keys, expected), strict=True
        ):
            assert np.array_equal(found, lines)
    assert find_repeated_pages([], ALL) == find_repeated_lines([], []) == []


def test_only_what_is_asked_for_is_kept():
    size = {}
    for kind, fields in (("addresses", {"addresses"}), ("pages", {"pages"}), ("near", {"bands", "signatures"})):
        keys = collect([("http://a.example", "some text\nhere")] * 3, DuplicatesConfig(names=kind))
        assert len(keys) == 3 and {name for name, value in vars(keys).items() if value.size} == fields | {"line_starts"}
        size |= {name: getattr(keys, name).nbytes for name in fields}
    keys = collect([("http://a.example", "some text\nhere")] * 3, DuplicatesConfig(names="lines"))
    assert keys.lines.nbytes == 48 and keys.line_starts.tolist() == [0, 2, 4, 6]
    assert size["addresses"] == size["pages"] == 24 and size["bands"] == size["signatures"] == 3 * 256


def test_keys_do_not_change_with_version_or_machine():
    """They may lie on a disk between two runs."""
    assert hash_text("tea") == 10431608578837538234 and hash_text("") == 0 and hash_text("\ud800") > 0
    keys = collect([("http://a.example/", "one two three four five six 日本 seven")])
    assert keys.bands[0, :2].tolist() == [14543370814215135147, 7339226757514986931] and keys.signatures[
        0, :4
    ].tolist() == [65, 95, 222, 27]


def test_settings_that_cannot_be_are_refused():
    for settings_, text in (
        (
            {"names": "pages, sites"},
            "duplicates.names expected a comma list of addresses, pages, near, lines. .* 'sites'",
        ),
        ({"jaccard": 0.0}, r"duplicates.jaccard expected a number above 0, at most 1\. Received: 0.0"),
        ({"shingle": 0}, r"duplicates.shingle expected at least 1\. Received: 0"),
        ({"sketch": 0}, r"duplicates.sketch expected 1 to 65536\. Received: 0"),
    ):
        with pytest.raises(ValueError, match=text):
            DuplicatesConfig(**settings_)


def test_edited_real_pages_are_found_and_others_never(shared_data):
    pages = itertools.islice(Warc(shared_data / "warc" / "real-pages.warc.gz"), 150)
    results = map(strip_html, pages)
    texts = [result.text for result in results if isinstance(result, Document) and len(result.text.split()) >= 100]
    draw = random.Random(0)
    edited = []
    for text in texts:
        words = text.split()
        for _ in range(max(1, len(words) // 200)):  # 5 shingles each, of 200
            words[draw.randrange(len(words))] = "edited"
        edited.append(" ".join(words))
    config = DuplicatesConfig(names="near")
    originals, copies = (collect([(str(n), text) for n, text in enumerate(some)], config) for some in (texts, edited))
    alone, found = find_repeated_pages([originals, copies], config)
    assert len(texts) > 100 and not alone.any() and np.mean(found == 3) >= 0.95
