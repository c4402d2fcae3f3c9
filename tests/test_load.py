"""Models in the form in which T5 is published: read from folders and a hub, written for transformers, used here.

The hub is a server on this machine that answers what huggingface_hub asks; nothing here reaches a real one.
"""

import contextlib
import dataclasses
import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_llm import hub
from tf_llm.contracts import DECODER_IDS, SOURCE_IDS, UserError
from tf_llm.load import Generator, from_pretrained, save_pretrained
from tf_llm.model.encoder_decoder import build_model
from tf_llm.model.sizes import build_size
from tf_llm.text.tokenizers import CharTokenizer
from tf_llm.training.checkpoints import Checkpoints

pytest.importorskip("safetensors", reason="needs the extra: pip install 'tf_llm[hugging_face]'")
pytest.importorskip("huggingface_hub", reason="needs the extra: pip install 'tf_llm[hugging_face]'")

SHAPE = {
    "vocabulary_size": 40,
    "source_length": 9,
    "target_length": 6,
    "num_layers": 1,
    "num_decoder_layers": 2,
    "num_heads": 2,
    "d_head": 12,
    "d_model": 16,
    "d_ff": 20,
}
V1_0, V1_1 = build_size("t5_small", **SHAPE), build_size("t5_v1_1_small", **SHAPE)
LENGTHS = {"source_length": 9, "target_length": 6}
versions = pytest.mark.parametrize("config", [V1_0, V1_1], ids=["v1.0", "v1.1"])


def make_batch(config, rows=4):
    random = np.random.default_rng(1)
    source = random.integers(3, config.vocabulary_size, (rows, config.source_length)).astype("int32")
    for i, row in enumerate(source):
        row[config.source_length - 2 * i :] = 0
    said = random.integers(3, config.vocabulary_size, (rows, config.target_length)).astype("int32")
    said[:, 0] = 0
    return {SOURCE_IDS: source, DECODER_IDS: said}


def say_logits(model, batch):
    return keras.ops.convert_to_numpy(model(batch, training=False))


@pytest.fixture
def saved(tmp_path):
    """A folder with a model of T5 1.1 in several files."""
    model = build_model(V1_1)
    save_pretrained(model, CharTokenizer("abcdefgh ."), tmp_path / "saved", max_shard_bytes=5_000)
    return tmp_path / "saved"


# === Folders ===


@versions
@pytest.mark.parametrize("max_shard_bytes", [5_000_000_000, 5_000, 1], ids=["one", "some", "each"])
def test_what_is_saved_is_loaded(config, max_shard_bytes, tmp_path):
    model, tokenizer = build_model(config), CharTokenizer("abcdefgh .")
    save_pretrained(model, tokenizer, tmp_path, max_shard_bytes)
    files = list(tmp_path.glob("*.safetensors"))
    assert len(files) == 1 if max_shard_bytes > 1e6 else len(files) > 3
    assert (tmp_path / "model.safetensors.index.json").exists() == (len(files) > 1)
    loaded, read = from_pretrained(tmp_path, **LENGTHS)
    assert loaded.config == config
    assert read.encode("a bad cab.") == tokenizer.encode("a bad cab.")
    for one, other in zip(model.trainable_variables, loaded.trainable_variables, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=one.path)


def test_saving_again_leaves_nothing_of_before(saved):
    model, _ = from_pretrained(saved, **LENGTHS)
    save_pretrained(model, None, saved)
    assert sorted(path.name for path in saved.iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
    ]
    assert from_pretrained(saved, **LENGTHS)[1] is None
    with pytest.raises(UserError, match=r"expected a spiece\.model beside the model of .*Copy it"):
        Generator.from_pretrained(saved, **LENGTHS)


@pytest.mark.parametrize("precision", ["bfloat16", "mixed_bfloat16"])
def test_precisions_are_saved_and_loaded(precision, saved, tmp_path):
    model, _ = from_pretrained(saved, **LENGTHS, precision=precision)
    save_pretrained(model, None, tmp_path / "again")
    stored = {tensor.dtype for tensor in hub.open_tensors(tmp_path / "again").values()}
    assert stored == {"BF16" if precision == "bfloat16" else "F32"}
    assert from_pretrained(tmp_path / "again", **LENGTHS, precision="float32")[0].variable_dtype == "float32"


def damage(name, text):
    return lambda folder: (folder / name).write_text(text)


def keep_a_pickle(folder):
    for path in folder.glob("model*"):
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04")


def name_foreign_file(name):
    return damage("model.safetensors.index.json", json.dumps({"weight_map": {"shared.weight": name}}))


def cut_a_file(folder):
    path = sorted(folder.glob("*.safetensors"))[0]
    path.write_bytes(path.read_bytes()[:-10])


def quantise(folder):
    from safetensors.numpy import save_file

    save_file({"shared.weight": np.zeros((40, 16), "int8")}, folder / "model.safetensors")


def store_twice(folder):
    one, other = sorted(folder.glob("*.safetensors"))[:2]
    other.write_bytes(one.read_bytes())


@pytest.mark.parametrize(
    "harm, message",
    [
        (lambda folder: (folder / "config.json").unlink(), r"expected a model's config\.json in .*No such file"),
        (damage("config.json", "{"), r"expected a JSON object in"),
        (damage("config.json", "[1]"), r"Received: a list"),
        (damage("config.json", "[" * 100_000), r"expected a JSON object in"),
        (damage("config.json", '{"model_type": "bert"}'), r"model_type is 'bert' in place of 't5'"),
        (damage("config.json", '{"model_type": "t5", "d_model": 9999999}'), r"of another shape: .*9999999"),
        (keep_a_pickle, r"Received: .*pytorch_model\.bin.*is a pickle, which can run code, and is not read"),
        (name_foreign_file("../other.safetensors"), r"Received: '\.\./other\.safetensors'\. Do not trust"),
        (name_foreign_file("/etc/other.safetensors"), r"Do not trust"),
        (name_foreign_file("c:other.safetensors"), r"Do not trust"),
        (name_foreign_file("..\\other.safetensors"), r"Do not trust"),
        (name_foreign_file("pytorch_model.bin"), r"Do not trust"),
        (damage("model.safetensors.index.json", '{"weight_map": ["a"]}'), r"Received: 'none'"),
        (name_foreign_file("absent.safetensors"), r"expected a file of tensors at .*absent"),
        (cut_a_file, r"expected a file of tensors at"),
        (quantise, r"Received: shared\.weight of I8"),
        (store_twice, r"each in one file"),
        (damage("tf_llm_tokenizer.json", "{}"), r"expected a tokenizer saved by tf_llm"),
    ],
    ids=lambda value: "" if callable(value) else None,
)
def test_harmful_and_damaged_folders_cost_one_line(harm, message, saved):
    harm(saved)
    with pytest.raises(UserError, match=message) as caught:
        from_pretrained(saved, **LENGTHS)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_larger_than_the_model_is_refused(saved):
    CharTokenizer([chr(i) for i in range(97, 150)]).save(saved / "tf_llm_tokenizer.json")
    with pytest.raises(UserError, match="expected a tokenizer of at most the model's 40 words"):
        from_pretrained(saved, **LENGTHS)


def test_a_missing_package_is_named_with_its_extra(saved, monkeypatch):
    for module, action in (
        ("safetensors", lambda: from_pretrained(saved, **LENGTHS)),
        ("huggingface_hub", lambda: from_pretrained("some/model")),
    ):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            with pytest.raises(UserError, match=rf"expected the package {module}\..*tf_llm\[hugging_face\]"):
                action()


def test_models_that_t5_cannot_be_are_not_written(tmp_path):
    model = build_model(dataclasses.replace(V1_1, positions="rotary"))
    with pytest.raises(UserError, match="positions is 'rotary' in place of 'relative'"):
        save_pretrained(model, None, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_written_to_costs_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="expected to write a model of"):
        save_pretrained(build_model(V1_1), None, tmp_path / "file")


# === Tokenizers and text ===


def train_pieces(folder):
    """A SentencePiece model like T5's: padding, end and unknown are 0, 1 and 2."""
    sentencepiece = pytest.importorskip("sentencepiece")
    prefix = folder / "pieces"
    (folder / "corpus.txt").write_text("the cat sat on the mat\nthe dog sat on the log\n" * 20)
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "corpus.txt"),
        model_prefix=str(prefix),
        vocab_size=30,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    return prefix.with_suffix(".model").read_bytes()


def test_pieces_are_written_and_read_as_they_are(tmp_path):
    pieces = pytest.importorskip("tf_llm.text.sentence_pieces", reason="needs the tokenizer by pieces")
    model_bytes = train_pieces(tmp_path)
    tokenizer = pieces.SentencePieceTokenizer.from_model(model_bytes, num_sentinels=100)
    model = build_model(dataclasses.replace(V1_1, vocabulary_size=160))
    save_pretrained(model, tokenizer, tmp_path / "saved")
    assert (tmp_path / "saved" / "spiece.model").read_bytes() == model_bytes
    assert not (tmp_path / "saved" / "tf_llm_tokenizer.json").exists()
    _, read = from_pretrained(tmp_path / "saved", **LENGTHS)
    assert read.encode("the cat <extra_id_0> mat") == tokenizer.encode("the cat <extra_id_0> mat")
    assert read.vocabulary_size == tokenizer.vocabulary_size


def test_a_prompt_is_a_request_with_its_end_behind(saved):
    generate = Generator.from_pretrained(saved, **LENGTHS)
    sources = []
    encode = generate.encode_sources
    generate.encode_sources = lambda rows, *rest: sources.append(rows) or encode(rows, *rest)
    ids = generate.tokenizer.encode
    texts = generate(["abc", "abcdefghabc"], max_new_tokens=50)
    assert sources == [[[*ids("abc"), 1], [*ids("abcdefgh"), 1]]]  # one round, cut to S = 9 with its end
    assert [len(text) <= 6 for text in texts] == [True, True]
    with pytest.raises(
        ValueError, match=r"frame is expected to be one of \['blank', 'mode', 'page', 'request'\]\. Received: 'letter'"
    ):
        Generator(from_pretrained(saved, **LENGTHS)[0], generate.tokenizer, frame="letter")


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_a_loaded_model_is_tuned_and_checkpointed_like_any_other(precision, saved, tmp_path):
    model, _ = from_pretrained(saved, **LENGTHS, precision=precision)
    batch = make_batch(model.config)
    targets = np.roll(batch[DECODER_IDS], -1, axis=1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(0.02), loss=loss, run_eagerly=True)
    losses = model.fit(batch, targets, epochs=10, verbose=0).history["loss"]
    assert losses[-1] < 0.8 * losses[0]
    Checkpoints(tmp_path / "checkpoints", model).save()
    other, _ = from_pretrained(saved, **LENGTHS, precision=precision)
    assert Checkpoints(tmp_path / "checkpoints", other).restore()
    np.testing.assert_array_equal(say_logits(model, batch), say_logits(other, batch))
    save_pretrained(model, None, tmp_path / "tuned")
    again, _ = from_pretrained(tmp_path / "tuned", **LENGTHS, precision=precision)
    np.testing.assert_array_equal(say_logits(model, batch), say_logits(again, batch))


# === transformers ===


def read_peer(folder):
    transformers = pytest.importorskip("transformers", reason="needs transformers: pip install 'tf_llm[peers]'")
    pytest.importorskip("torch", reason="needs torch: pip install 'tf_llm[peers]'")
    peer, report = transformers.T5ForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    return peer.eval()


def say_peer_logits(peer, batch):
    import torch

    source = torch.tensor(batch[SOURCE_IDS]).long()
    with torch.no_grad():
        said = torch.tensor(batch[DECODER_IDS]).long()
        output = peer(input_ids=source, attention_mask=(source != 0).long(), decoder_input_ids=said)
    return output.logits.float().numpy()


@versions
@pytest.mark.parametrize("max_shard", [5_000_000_000, 5_000], ids=["one_file", "shards"])
def test_transformers_reads_what_is_saved_here_and_the_other_way_round(config, max_shard, tmp_path):
    model, batch = build_model(config), make_batch(config)
    for variable in model.trainable_variables:  # norms of 1 would hide one that is taken for another
        variable.assign(variable + tf.random.stateless_normal(variable.shape, [1, 2], stddev=0.1))
    ours = say_logits(model, batch)
    save_pretrained(model, None, tmp_path / "ours", max_shard)
    peer = read_peer(tmp_path / "ours")
    theirs = say_peer_logits(peer, batch)
    assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()
    peer.save_pretrained(tmp_path / "theirs", max_shard_size=max_shard)
    assert (tmp_path / "theirs" / "model.safetensors.index.json").exists() == (max_shard < 1e6)
    again, _ = from_pretrained(tmp_path / "theirs", **LENGTHS)
    assert again.config == config
    np.testing.assert_array_equal(say_logits(again, batch), ours)


# === A hub ===

COMMITS = {"main": "a" * 40, "old": "b" * 40}


class Hub(http.server.BaseHTTPRequestHandler):
    """What huggingface_hub asks of a hub: what a revision holds, and its files."""

    protocol_version = "HTTP/1.1"
    folder: Path
    asked: Counter

    def do_HEAD(self):
        self.answer(send_body=False)

    def do_GET(self):
        self.answer(send_body=True)

    def answer(self, send_body):
        path = self.path.partition("?")[0]
        self.asked[self.command] += 1
        if path.startswith("/api/models/our/model/"):
            kind, revision = path.removeprefix("/api/models/our/model/").split("/")[:2]
            commit = COMMITS.get(revision, revision)
            if commit not in COMMITS.values():
                return self.send(404, b"{}", {"X-Error-Code": "RevisionNotFound"}, send_body)
            files = [path for path in sorted(self.folder.iterdir()) if commit == COMMITS["main"] or "old" in path.name]
            rows = [{"type": "file", "path": path.name, "size": path.stat().st_size, "oid": "0" * 40} for path in files]
            whole = {"id": "our/model", "sha": commit, "siblings": [{"rfilename": row["path"]} for row in rows]}
            whole |= {"private": False, "downloads": 0, "likes": 0, "tags": []}
            body = json.dumps(rows if kind == "tree" else whole).encode()
            return self.send(200, body, {"Content-Type": "application/json"}, send_body)
        if path.startswith("/api/models/our/gated"):
            return self.send(403, b"{}", {"X-Error-Code": "GatedRepo"}, send_body)
        if path.startswith("/our/model/resolve/"):
            revision, name = path.removeprefix("/our/model/resolve/").split("/")
            content = (self.folder / name).read_bytes()
            marks = {"X-Repo-Commit": COMMITS.get(revision, revision)}
            marks["ETag"] = f'"{hashlib.sha256(content).hexdigest()}"'
            return self.send(200, content, marks, send_body)
        return self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, send_body)

    def send(self, status, body, headers, send_body):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if send_body:
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serve(folder):
    """Serves a folder as our/model; yields the address and the counter of requests."""
    handler = type("Handler", (Hub,), {"folder": folder, "asked": Counter()})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", handler.asked
        server.shutdown()


def ask(cache, endpoint, name="our/model", **settings):
    """`find_folder` in a process of its own, which reads its environment afresh: the folder, or the error."""
    code = (
        "import json, sys; from tf_llm import UserError, hub\n"
        "try: print(hub.find_folder(sys.argv[1], **json.loads(sys.argv[2])))\n"
        "except UserError as error: sys.exit(f'UserError: {error}')"
    )
    offline = {"HF_HUB_OFFLINE": "1"} if settings.pop("offline", False) else {}
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    environment |= {"HF_HOME": str(cache), "HF_ENDPOINT": endpoint, "NO_PROXY": "127.0.0.1", **offline}
    command = [sys.executable, "-c", code, name, json.dumps(settings)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    return result.stdout.strip() or next(
        line for line in reversed(result.stderr.splitlines()) if line.startswith("UserError") or line == "Traceback"
    )


def test_a_hub_is_asked_once(saved, tmp_path):
    (saved / "pytorch_model.bin").write_bytes(b"\x80\x04")
    (saved / "notes_old.md").write_text("not wanted")
    with serve(saved) as (endpoint, asked):
        cold = Path(ask(tmp_path / "cache", endpoint))
        wanted = {path.name for path in saved.iterdir()} - {"pytorch_model.bin", "notes_old.md"}
        assert {path.name for path in cold.iterdir()} == wanted
        assert cold.name == COMMITS["main"]
        downloads = asked["GET"]
        assert ask(tmp_path / "cache", endpoint) == str(cold)
        assert asked["GET"] <= downloads + 2  # what the revision holds, but no file
        before = asked.total()
        assert ask(tmp_path / "cache", endpoint, offline=True) == str(cold)
        assert ask(tmp_path / "cache", endpoint, local_files_only=True) == str(cold)
        assert asked.total() == before
        old = Path(ask(tmp_path / "cache", endpoint, revision="old"))
        assert old.name == COMMITS["old"]
    assert ask(tmp_path / "cache", endpoint) == str(cold)  # the hub is gone, the cache is not
    assert from_pretrained(cold, **LENGTHS)[0].config == V1_1


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"name": "our/unheard"}, "a name that the hub does not show. Check the name"),
        ({"name": "our/gated"}, "none: it is gated. Accept its terms"),
        ({"revision": "unheard"}, "expected a branch, tag or commit of this model: our/model at unheard"),
        ({"offline": True}, "expected this model in the cache, or a hub that answers: our/model. Received: neither"),
        ({"name": "no/such/folder"}, "Received: neither. Check the name"),
    ],
    ids=["unknown", "gated", "revision", "offline", "folder"],
)
def test_what_a_hub_refuses_costs_one_line(settings, message, saved, tmp_path):
    with serve(saved) as (endpoint, _):
        assert message in ask(tmp_path / "cache", endpoint, **settings)


def test_no_network_costs_one_line(tmp_path):
    assert "or a hub that answers: our/model" in ask(tmp_path / "cache", "http://127.0.0.1:9")
