"""Requests that others have collected: their files, and what is wrong with some."""

import json

import pytest

from tf_llm.apps.assistant.calls import OUT_OF_SCOPE
from tf_llm.apps.assistant.corpora import read_clinc, read_snips, read_tags
from tf_llm.contracts import UserError


def write_snips(folder, said="play abba now\n", tags="O B-artist O\n", label="PlayMusic\n"):
    for name, text in (("seq.in", said), ("seq.out", tags), ("label", label)):
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("tags", "chunks"),
    [
        ("O O O", (("a b c", None),)),
        ("B-x I-x O", (("a b", "x"), (" c", None))),
        ("B-x B-x B-y", (("a", "x"), (" ", None), ("b", "x"), (" ", None), ("c", "y"))),
        ("O I-x I-y", (("a ", None), ("b", "x"), (" ", None), ("c", "y"))),  # an I- that continues nothing begins
    ],
)
def test_tags_become_chunks(tags, chunks):
    assert read_tags(["a", "b", "c"], tags.split()) == chunks


def test_a_part_of_snips(tmp_path):
    (utterance,) = read_snips(write_snips(tmp_path))
    assert utterance.text == "play abba now" and str(utterance.call) == 'PlayMusic(artist="abba")'


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({"label": "PlayMusic\nStop\n"}, r"as many lines in each file of .*1 in seq\.in, 1 in seq\.out, 2 in label"),
        ({"tags": "O O\n"}, r"expected a tag for each word in line 1 of .*Received: 3 words and 2 tags"),
        ({"said": "\n", "tags": "\n"}, r"expected a tag for each word in line 1"),
    ],
)
def test_files_of_snips_that_do_not_fit_are_refused(tmp_path, files, text):
    with pytest.raises(UserError, match=text):
        read_snips(write_snips(tmp_path, **files))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"expected a file of requests at .*seq\.in\. Received: .*Copy it there"):
        read_snips(tmp_path)


def test_a_part_of_clinc(tmp_path):
    path = tmp_path / "data.json"
    path.write_text(json.dumps({"val": [["hi there", "greeting"]], "oos_val": [["is mars red", "oos"]]}))
    greeting, other = read_clinc(path, "val")
    assert (greeting.name, greeting.text, greeting.call.name) == ("greeting", "hi there", "greeting")
    assert (other.name, other.call) == (OUT_OF_SCOPE, None)
    for content in ('{"val": []}', "[]", "{", '{"val": [["a"]], "oos_val": []}'):
        path.write_text(content)
        with pytest.raises(UserError, match=r"expected the parts 'val' and 'oos_val' of CLINC150 in"):
            read_clinc(path, "val")


def test_the_real_files(shared_data):
    folder = shared_data / "dialogue"
    train = read_snips(folder / "snips" / "train")
    said = (folder / "snips" / "train" / "seq.in").read_text(encoding="utf-8").splitlines()
    assert [utterance.text for utterance in train] == [" ".join(line.split()) for line in said]
    assert len({utterance.name for utterance in train}) == 7
    assert len(read_clinc(folder / "clinc150" / "data_dev.json", "train")) == 15_100
