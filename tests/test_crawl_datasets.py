"""Data sets of others: a folder is a real one for `datasets`; a module stands in for kagglehub, which downloads."""

import json
import pickle
import sys
import types

import pytest

from tf_llm.contracts import UserError
from tf_llm.crawl import HuggingFaceDataset, KaggleDataset

ROWS = 7  # of each of three files


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A data set of three files; addresses stand in the first one."""
    datasets = pytest.importorskip("datasets", reason="needs tf_llm[datasets]")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "texts"
    folder.mkdir()
    for file in range(3):
        rows = [{"text": f"{file} {row}", "url": f"https://a.example/{row}" if not file else ""} for row in range(ROWS)]
        (folder / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def read(source):
    return [page.content.decode() for page in source]


WHOLE = [f"{file} {row}" for file in range(3) for row in range(ROWS)]


@pytest.mark.parametrize("streaming", [True, False])
def test_rows_become_pages(folder, streaming):
    source = HuggingFaceDataset(str(folder), streaming=streaming)
    source.fetch()
    assert read(source) == read(source) == WHOLE
    addresses = [page.url for page in source]
    assert len(set(addresses)) == len(WHOLE)
    assert addresses[3] == "https://a.example/3"
    assert addresses[ROWS + 2] == ("texts/train#1-2" if streaming else f"texts/train#{ROWS + 2}")
    assert source.parts == (3 if streaming else 1)
    assert not source.rejections


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("count", [2, 4])
def test_shards_are_disjoint_and_together_everything(folder, streaming, count):
    source = HuggingFaceDataset(str(folder), streaming=streaming)
    parts = [pickle.loads(pickle.dumps(source.shard(index, count))) for index in range(count)]
    pages = [list(part) for part in parts]
    assert sorted((page for part in pages for page in part), key=lambda page: page.content) == list(source)
    assert all(pages)
    assert len({repr(part) for part in [source, *parts]}) == count + 1
    halves = [read(part.shard(side, 2)) for part in parts[:2] for side in (0, 1)]
    assert sorted(sum(halves[:2], [])) == sorted(page.content.decode() for page in pages[0])  # noqa: RUF017
    assert parts[0].parts == ((2 if count == 2 else 3) if streaming else 1)
    with pytest.raises(ValueError, match="shard expected 0 <= index < count"):
        source.shard(count, count)


def test_parquet_and_another_column(folder):
    pandas = pytest.importorskip("pandas")
    for path in folder.iterdir():
        path.unlink()
    pandas.DataFrame({"body": ["tea", "coffee"], "link": ["https://a.example/", None]}).to_parquet(folder / "a.parquet")
    for streaming in (True, False):
        source = HuggingFaceDataset(str(folder), text_column="body", url_column="link", streaming=streaming)
        assert next(page.url for page in source) == "https://a.example/"
        assert read(source) == ["tea", "coffee"]
        with pytest.raises(
            UserError, match=r"expected a column 'text' in the data set .* columns body, link. Name the"
        ):
            list(HuggingFaceDataset(str(folder), streaming=streaming))


@pytest.mark.parametrize("streaming", [True, False])
def test_rows_without_text_are_counted(folder, streaming):
    texts = ["tea", "", "  ", None, "\ud800", "x" * 100, "milk"]
    (folder / "1.jsonl").write_text("".join(json.dumps({"text": text, "url": ""}) + "\n" for text in texts[:4]))
    (folder / "2.jsonl").write_text("".join(json.dumps({"text": text, "url": ""}) + "\n" for text in texts[5:]))
    source = HuggingFaceDataset(str(folder), streaming=streaming, max_bytes=99)
    assert read(source)[ROWS:] == ["tea", "milk"]
    assert source.rejections == {"no text": 3, "too large": 1}


def test_a_broken_file_of_a_stream_costs_itself_alone(folder):
    (folder / "1.jsonl").write_text('{"text": "tea", "url": ""}\n{"text": \n')
    source = HuggingFaceDataset(str(folder))
    assert [text for text in read(source) if text[0] != "1"] == [text for text in WHOLE if text[0] != "1"]
    assert source.rejections == {"unreadable file": 1}
    with pytest.raises(
        UserError, match=r"expected the split 'train' of the data set .* Received: DatasetGenerationError"
    ):
        list(HuggingFaceDataset(str(folder), streaming=False))


def test_what_is_not_there_is_a_one_line_error(folder):
    with pytest.raises(UserError, match=r"expected the split 'test' of the data set .*Bad split.* Check its name"):
        list(HuggingFaceDataset(str(folder), split="test"))
    with pytest.raises(UserError, match=r"Received: FileNotFoundError"):
        list(HuggingFaceDataset(str(folder / "none")))


def test_no_code_of_a_data_set_is_executed(folder, monkeypatch):
    (folder / "texts.py").write_text("raise SystemExit('executed')")
    with pytest.raises(UserError, match=r"Dataset scripts are no longer supported"):
        list(HuggingFaceDataset(str(folder)))
    monkeypatch.setattr("datasets.__version__", "3.9.1")
    with pytest.raises(
        UserError, match=r"expected datasets of version 4 or later. Received: 3.9.1, which may run code"
    ):
        list(HuggingFaceDataset(str(folder)))


@pytest.fixture
def kaggle(tmp_path, monkeypatch):
    """A kagglehub that has one data set: a list of what was asked for."""
    folder = tmp_path / "texts"
    (folder / "deep").mkdir(parents=True)
    for name in ("b.jsonl", "deep/a.jsonl"):
        (folder / name).write_text("".join(json.dumps({"review": f"{name} {row}"}) + "\n" for row in range(3)))
    (folder / "read.me").write_text("about")
    asked = []

    def download(handle):
        asked.append(handle)
        if not handle.startswith("owner/texts"):
            raise RuntimeError("403 Client Error")
        return str(folder)

    monkeypatch.setitem(sys.modules, "kagglehub", types.SimpleNamespace(dataset_download=download))
    return asked


def test_files_of_kaggle_become_pages(kaggle):
    source = KaggleDataset("owner/texts", text_column="review")
    assert kaggle == []
    whole = [f"{name} {row}" for name in ("b.jsonl", "deep/a.jsonl") for row in range(3)]
    assert read(source) == read(source) == whole
    assert source.parts == 2 and kaggle == ["owner/texts"]
    parts = [pickle.loads(pickle.dumps(source.shard(index, 2))) for index in range(2)]
    parts[0].fetch()
    assert [read(part) for part in parts] == [whole[:3], whole[3:]]
    assert read(parts[1].shard(1, 2)) == [whole[4]]
    assert repr(parts[1]) == "KaggleDataset(owner/texts, **/*, review, part 1 of 2)"


def test_rejections_of_the_files_are_those_of_the_data_set(kaggle, tmp_path):
    (tmp_path / "texts" / "b.jsonl").write_text('{"review": "tea"}\n{\n')
    source = KaggleDataset("owner/texts", "*.jsonl", text_column="review")
    for _ in range(2):
        assert read(source) == ["tea"]
        assert source.rejections == {"bad JSON": 1}


def test_what_kaggle_does_not_have_is_a_one_line_error(kaggle):
    with pytest.raises(
        UserError, match=r"files of texts like \*.csv in the data set owner/texts. Received: b.jsonl, deep, read.me"
    ):
        list(KaggleDataset("owner/texts", "*.csv"))
    with pytest.raises(
        UserError, match=r"data set owner/secret of Kaggle. Received: RuntimeError: 403 .* and your key"
    ):
        list(KaggleDataset("owner/secret"))
    with pytest.raises(UserError, match=r"expected a data set of Kaggle, owner/name or owner/name/versions/3"):
        KaggleDataset("texts")


@pytest.mark.parametrize(
    ("module", "source"),
    [("datasets", HuggingFaceDataset("owner/texts")), ("kagglehub", KaggleDataset("owner/texts"))],
    ids=["datasets", "kagglehub"],
)
def test_missing_packages_are_named(monkeypatch, module, source):
    monkeypatch.setitem(sys.modules, module, None)
    extra = {"kagglehub": "kaggle"}.get(module, module)
    with pytest.raises(UserError, match=rf'expected the package {module}.* pip install "tf_llm\[{extra}\]"'):
        list(source)
