"""Flags: every setting has one, and what contradicts itself is refused with one line."""

import dataclasses

import pytest
from absl import flags
from archives import write_warc

import tf_llm.flags
from tf_llm.config import STAGES, flatten
from tf_llm.contracts import UserError
from tf_llm.crawl import (
    CommonCrawl,
    CommonCrawlPages,
    Csv,
    HtmlFiles,
    HuggingFaceDataset,
    JsonLines,
    KaggleDataset,
    SelfCrawl,
    TextFiles,
    Warc,
)
from tf_llm.crawl.warc import MEDIA_TYPES
from tf_llm.model.sizes import SIZES
from tf_llm.recipes import RECIPES


@pytest.fixture(scope="module", autouse=True)
def defined():
    tf_llm.flags.define_flags()


def parse(*arguments):
    flags.FLAGS.unparse_flags()
    for name in list(flags.FLAGS):
        flags.FLAGS[name].unparse()
    flags.FLAGS(["program", *map(str, arguments)])
    return flags.FLAGS


def test_every_setting_has_a_flag_with_a_help():
    for stage, config in STAGES.items():
        for field in dataclasses.fields(config):
            flag = flags.FLAGS[f"{stage}.{field.name}"]
            assert flag.help.rpartition(" [")[0], f"{stage}.{field.name} has no comment"


def test_a_flag_that_is_not_given_leaves_the_recipe_alone():
    for name, recipe in RECIPES.items():
        parse(f"--recipe={name}")
        assert tf_llm.flags.build_run() == recipe()


def test_flags_change_what_they_name():
    parse(
        "--recipe=best",
        "--model.num_layers=3",
        "--training.learning_rate=0.5",
        "--nohtml.main_content",
        "--tokens=characters",
    )
    changed, before = flatten(tf_llm.flags.build_run()), flatten(RECIPES["best"]())
    assert {name: value for name, value in changed.items() if value != before[name]} == {
        "tokens": "characters", "model.num_layers": 3, "training.learning_rate": 0.5, "html.main_content": False,
    }  # fmt: skip


def test_a_size_takes_the_place_of_the_recipes_model_and_leaves_its_lengths():
    parse("--recipe=transformer", "--size=tiny", "--model.d_ff=99")
    run, tiny = tf_llm.flags.build_run(), SIZES["tiny"]
    assert (run.model.d_model, run.model.positions, run.model.d_ff) == (tiny.d_model, tiny.positions, 99)
    lengths = (run.model.source_length, run.model.target_length, run.model.vocabulary_size)
    assert lengths == (64, 64, 8_003) and run.training == RECIPES["transformer"]().training


def test_what_a_flag_set_is_known():
    parse(
        "--recipe=best", "--size=tiny", "--training.steps=9", "--tokens=bpe", "--model.d_ff=99", "--nohtml.main_content"
    )
    run, origins = tf_llm.flags.build_run(), tf_llm.flags.find_origins()
    changed, before = flatten(run), flatten(RECIPES["best"]())
    assert {name for name, value in changed.items() if value != before[name]} <= origins.keys()
    assert origins["model.d_model"] == origins["training.start_from_frequencies"] == "--size=tiny"
    for name in ("training.steps", "tokens", "model.d_ff", "html.main_content"):
        assert origins[name] == f"--{name}"
    assert "model.source_length" not in origins and "training.seconds" not in origins
    parse()
    assert tf_llm.flags.find_origins() == {}


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_takes_a_model_by_name(recipe):
    parse(f"--recipe={recipe}", "--size=base")  # which has no biases in its output that could begin as frequencies
    run = tf_llm.flags.build_run()
    assert run.model.d_model == SIZES["base"].d_model and not run.training.start_from_frequencies


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--model.d_model=33", r"d_model.*multiple of .*num_heads"),
        ("--model.context=matrix", r"context.*'sequence', 'vector'|context.*'vector', 'sequence'"),
        ("--training.optimizer=best", r"training\.optimizer expected one of .*adagrad"),
        ("--words.vocabulary_size=9000", r"model\.vocabulary_size is expected to be at least"),
        ("--shards.overlap=200", r"overlap.*Received: .*200"),
        ("--workers.processes=-1", r"processes is expected to be at least 0. Received: -1"),
    ],
)
def test_contradictions_are_one_line_errors(flag, message):
    parse(flag)
    with pytest.raises(UserError, match=message) as error:
        tf_llm.flags.build_run()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("flag", ["--recipe=worst", "--training.batch_size=few", "--source=web", "--files=0"])
def test_values_of_the_wrong_kind_are_refused_when_parsed(flag):
    with pytest.raises(flags.IllegalFlagValueError):
        parse(flag)
    parse()


def test_sources(tmp_path, monkeypatch, caplog):
    archive = write_warc(tmp_path / "pages.warc.gz", pages=2)
    parse(f"--warc={archive}")
    assert isinstance(tf_llm.flags.build_source(), Warc)
    parse("--source=self_crawl")
    assert isinstance(tf_llm.flags.build_source(), SelfCrawl)
    parse("--source=common_crawl", "--crawl=CC-MAIN-2026-39", "--files=2", "--megabytes=0")
    source = tf_llm.flags.build_source()
    assert isinstance(source, CommonCrawl) and (source.files, source.megabytes) == (2, None)
    parse("--source=self_crawl", f"--warc={archive}")
    with pytest.raises(UserError, match=r"expected --warc with --source=warc alone\. Received: --source=self_crawl"):
        tf_llm.flags.build_source()
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"text": "Tea."}')
    for arguments in ([], ["--source=json_lines"]):
        parse(f"--json_lines={texts}", *arguments)
        assert isinstance(tf_llm.flags.build_source(), JsonLines)
    parse(f"--json_lines={texts}", f"--warc={archive}")
    with pytest.raises(UserError, match=r"--json_lines with --source=json_lines alone\. Received: --source=warc"):
        tf_llm.flags.build_source()
    parse(f"--path={texts}")
    assert isinstance(tf_llm.flags.build_source(), JsonLines)
    parse("--source=csv", f"--path={tmp_path}/*.csv")
    with pytest.raises(UserError, match=r"Received: .*\*\.csv'?, where there is no file"):
        tf_llm.flags.build_source()
    parse("--source=parquet", f"--warc={archive}")
    with pytest.raises(UserError, match=r"expected --warc with --source=warc alone\. Received: --source=parquet"):
        tf_llm.flags.build_source()


def test_sources_elsewhere():
    parse("--source=common_crawl_pages", "--url=*.example.org", "--language=es", "--language=de", "--limit=9")
    source = tf_llm.flags.build_source()
    assert isinstance(source, CommonCrawlPages)
    assert (source.url, source.languages, source.limit) == ("*.example.org", ("spa", "deu"), 9)
    assert source.media_types == MEDIA_TYPES
    parse("--source=hugging_face", "--dataset=owner/texts", "--dataset_config=en", "--text_column=body", "--split=test")
    source = tf_llm.flags.build_source()
    assert isinstance(source, HuggingFaceDataset)
    assert (source.name, source.config, source.split, source.text_column) == ("owner/texts", "en", "test", "body")
    parse("--source=kaggle", "--dataset=owner/texts", "--dataset_files=*.csv")
    source = tf_llm.flags.build_source()
    assert isinstance(source, KaggleDataset) and (source.handle, source.pattern) == ("owner/texts", "*.csv")
    for name, flag in (
        ("common_crawl_pages", "url"),
        ("csv", "path"),
        ("hugging_face", "dataset"),
        ("json_lines", "json_lines"),
        ("kaggle", "dataset"),
        ("warc", "warc"),
    ):
        parse(f"--source={name}")
        with pytest.raises(UserError, match=rf"expected --{flag} with --source={name}\. Received: none\. Say what"):
            tf_llm.flags.build_source()


def test_sources_of_files_and_wikipedia(tmp_path):
    for name, content in {"a.csv": "id,body\n7,Tea.\n", "b.txt": "Tea.", "c.html": "<p>Tea."}.items():
        (tmp_path / name).write_text(content)
    for arguments, kind in (
        (["--source=csv", f"--path={tmp_path}", "--text_column=body", "--url_column=id"], Csv),
        (["--source=text", f"--path={tmp_path}"], TextFiles),
        (["--source=html", f"--path={tmp_path}/*.html", f"--path={tmp_path}/c.html"], HtmlFiles),
        ([f"--path={tmp_path}/c.html"], HtmlFiles),
        (["--source=files", f"--path={tmp_path}/a.csv", "--text_column=body"], Csv),
    ):
        parse(*arguments)
        source = tf_llm.flags.build_source()
        assert type(source) is kind and len(list(source)) == 1
    parse(f"--path={tmp_path}", "--source=self_crawl")
    with pytest.raises(
        UserError, match=r"--path with --source=files or --source=csv .* Received: --source=self_crawl\. Leave one"
    ):
        tf_llm.flags.build_source()
    pytest.importorskip("mwparserfromhell", reason="needs tf_llm[wikipedia]")
    parse("--source=wikipedia", "--language=es", "--dump=20261101", "--files=2")
    assert repr(tf_llm.flags.build_source()) == "Wikipedia(es, 20261101, 2 files)"
    parse("--source=wikipedia", f"--path={tmp_path}")
    with pytest.raises(UserError, match="expected a Wikipedia dump"):
        tf_llm.flags.build_source()


@pytest.mark.parametrize(("answer", "kind"), [(True, CommonCrawl), (False, SelfCrawl)])
def test_without_a_word_common_crawl_is_read_where_it_answers(monkeypatch, caplog, answer, kind):
    monkeypatch.setattr(tf_llm.source_flags, "answers", lambda address: answer)
    parse()
    with caplog.at_level("INFO", "tf_llm.source_flags"):
        assert isinstance(tf_llm.flags.build_source(), kind)
    (record,) = caplog.records
    assert ("does not answer within 5 s" in record.getMessage()) is not answer
