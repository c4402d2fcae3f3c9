"""Checkpoints are whole or none, whatever stops the writing, and no damaged one is ever loaded.

This file, run as a script, is a process that makes checkpoints and is killed, or ends, while it does: see `main`.
"""

import doctest
import errno
import functools
import hashlib
import itertools
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import make_two_devices
from test_training_trainer import (
    Notes,
    assert_equal,
    build_run,
    build_tiny_model,
    full_disk,
    make_tiny_batches,
    messages,
    take_step,
    train,
    weights_of,
)

from tf_llm.contracts import UserError
from tf_llm.training import checkpoints as checkpoints_module
from tf_llm.training import manifests
from tf_llm.training.checkpoints import Checkpoints
from tf_llm.training.manifests import DamageError, check, read_manifest, write_manifest
from tf_llm.training.optimizers import TrainingConfig, build_optimizer
from tf_llm.training.trainer import Trainer

FILES = ["manifest.json", "state.data-00000-of-00001", "state.index"]


def save_steps(trainer, checkpoints, steps, losses=()):
    """Trains a step before each save; returns the weights by step."""
    batches, weights = iter(make_tiny_batches()), {}
    for number, step in enumerate(steps):
        take_step(trainer, next(batches))
        checkpoints.step.assign(step)
        checkpoints.save(*losses[number : number + 1])
        weights[step] = weights_of(trainer)
    return weights


@pytest.fixture(scope="module")
def three_saved(tmp_path_factory):
    """Checkpoints of the steps 1, 2 and 3, of which two are kept, and the weights by step."""
    folder = tmp_path_factory.mktemp("three")
    trainer, checkpoints, _ = build_run(folder)
    weights = save_steps(trainer, checkpoints, (1, 2, 3))
    assert list_names(folder) == [f"ckpt-{step}{name}" for step in (2, 3) for name in ("", *(f"/{n}" for n in FILES))]
    return folder, weights


def list_names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def read_all(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def copy(folder, target):
    return Path(shutil.copytree(folder, target / "copy"))


@pytest.fixture(scope="module")
def spare(tmp_path_factory):
    """A run whose weights anything may be loaded into."""
    return build_run(tmp_path_factory.mktemp("spare"), seed=99)[0]


def restore(trainer, folder, which="newest"):
    """The step of what is restored, or None, and the weights."""
    checkpoints = Checkpoints(folder, trainer.model, trainer.model.optimizer)
    return int(checkpoints.step) if checkpoints.restore(which) else None, weights_of(trainer)


def test_docstring_examples():
    for module, count in ((checkpoints_module, 6), (manifests, 2)):
        result = doctest.testmod(module)
        assert result.attempted >= count and result.failed == 0


def test_a_checkpoint_says_what_it_is(tmp_path):
    model = build_tiny_model(TrainingConfig())
    checkpoints = Checkpoints(tmp_path / "new" / "folder", model, about={"config": {"seed": 1}, "sites": ("a", "ü")})
    checkpoints.step.assign(5)
    checkpoints.total_steps.assign(10)
    path = Path(checkpoints.save(validation_loss=np.float32(2.5)))
    manifest = json.loads((path / "manifest.json").read_text())
    assert path == tmp_path / "new" / "folder" / "ckpt-5" and manifest == check(path) | {"sha256": manifest["sha256"]}
    assert (manifest["format"], manifest["step"], manifest["total_steps"], manifest["validation_loss"]) == (
        1,
        5,
        10,
        2.5,
    )
    assert manifest["about"] == {"config": {"seed": 1}, "sites": ["a", "ü"]}
    assert manifest["versions"].keys() == {"tf_llm", "tensorflow", "keras", "python"}
    assert manifest["versions"]["tensorflow"] == tf.__version__
    contents = [(path / name).read_bytes() for name in FILES[1:]]
    assert manifest["files"] == {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in zip(FILES[1:], contents, strict=True)
    }


@pytest.mark.parametrize("loss", [None, float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_no_loss(tmp_path, loss):
    path = Checkpoints(tmp_path, build_tiny_model(TrainingConfig())).save(validation_loss=loss)
    assert read_manifest(path)["validation_loss"] is None


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"keep": 0}, ValueError, "keep expected a whole number of at least 1. Received: 0"),
        ({"about": {"model": object()}}, TypeError, "not JSON serializable"),
    ],
)
def test_wrong_settings_are_named(tmp_path, settings, error, text):
    with pytest.raises(error, match=text):
        Checkpoints(tmp_path, build_tiny_model(TrainingConfig()), **settings)


# === Damage ===

DAMAGE = {
    "a byte flipped": lambda content: content[: len(content) // 2] + b"\x00" + content[len(content) // 2 + 1 :],
    "cut short": lambda content: content[: len(content) // 2],
    "longer": lambda content: content + b"\n",
    "empty": lambda content: b"",
    "zeros": lambda content: bytes(len(content)),
    "gone": None,
}


def damage(path, kind):
    path.unlink() if kind == "gone" else path.write_bytes(DAMAGE[kind](path.read_bytes()))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_newest_falls_back_to_the_one_before(three_saved, spare, tmp_path, name, kind, caplog):
    folder = copy(three_saved[0], tmp_path)
    damage(folder / "ckpt-3" / name, kind)
    step, weights = restore(spare, folder)
    assert step == 2
    assert_equal(weights, three_saved[1][2])
    (message,) = messages(caplog)
    assert message.startswith(f"checkpoint {folder}/ckpt-3 cannot be read ({name}: expected ")
    assert ", received" in message and message.endswith("); trying the one before")


@settings(deadline=None, max_examples=200)
@given(
    name=st.sampled_from(FILES), place=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255), cut=st.booleans()
)
def test_no_byte_is_changed_or_cut_off_unseen(three_saved, name, place, bits, cut):
    path = three_saved[0] / "ckpt-3" / name
    content = path.read_bytes()
    place = int(place * len(content))
    changed = content[:place] if cut else content[:place] + bytes([content[place] ^ bits]) + content[place + 1 :]
    path.write_bytes(changed)
    try:
        with pytest.raises(DamageError, match=f"^{name}: expected "):
            check(path.parent)
    finally:
        path.write_bytes(content)
    check(path.parent)


def test_nothing_of_a_damaged_checkpoint_is_loaded(three_saved, spare, tmp_path, monkeypatch):
    """The files are compared before TensorFlow sees them."""
    folder = copy(three_saved[0], tmp_path)
    for path in folder.glob("*/*.data*"):
        damage(path, "a byte flipped")
    before = weights_of(spare)
    with pytest.raises(UserError):
        restore(spare, folder)
    assert_equal(weights_of(spare), before)


def test_all_damaged_is_an_error_and_no_fresh_start(three_saved, tmp_path):
    folder = copy(three_saved[0], tmp_path)
    damage(folder / "ckpt-2" / FILES[1], "cut short")
    damage(folder / "ckpt-3" / FILES[0], "gone")
    trainer, checkpoints, notes = build_run(folder)
    text = r"expected a checkpoint of this model in .*copy. Received: 2 that cannot be read. .* move the folder away"
    with pytest.raises(UserError, match=text):
        train(trainer, checkpoints, notes)
    assert notes.starts == []


def test_a_damaged_one_is_not_counted_among_those_that_are_kept(three_saved, tmp_path):
    """Else the next save would remove the only one that is whole, trusting in one that is not."""
    folder = copy(three_saved[0], tmp_path)
    damage(folder / "ckpt-3" / FILES[1], "cut short")
    trainer, checkpoints, _ = build_run(folder)
    assert checkpoints.restore() and int(checkpoints.step) == 2
    save_steps(trainer, checkpoints, [4])
    assert sorted(path.name for path in folder.iterdir()) == ["ckpt-2", "ckpt-4"]


def test_a_damaged_one_is_replaced_when_its_step_comes_again(three_saved, spare, tmp_path):
    folder = copy(three_saved[0], tmp_path)
    damage(folder / "ckpt-3" / FILES[0], "cut short")
    trainer, checkpoints, _ = build_run(folder)
    assert checkpoints.restore() and int(checkpoints.step) == 2
    weights = save_steps(trainer, checkpoints, [3])
    assert sorted(path.name for path in folder.iterdir()) == ["ckpt-2", "ckpt-3"]
    step, restored = restore(spare, folder)
    assert step == 3
    assert_equal(restored, weights[3])


@pytest.mark.parametrize("optimizer", [True, False])
def test_checkpoint_of_another_model_is_an_error_and_stays(three_saved, tmp_path, optimizer):
    folder = copy(three_saved[0], tmp_path)
    before = read_all(folder)
    model = keras.Sequential([keras.Input((2,)), *(keras.layers.Dense(2) for _ in range(9))])
    model.compile(build_optimizer(TrainingConfig()))
    with pytest.raises(UserError, match=r"expected a checkpoint of this model .* Go back to the settings"):
        Checkpoints(folder, model, model.optimizer if optimizer else None).restore()
    assert read_all(folder) == before


def test_a_later_format_is_an_error(three_saved, spare, tmp_path, monkeypatch):
    folder = copy(three_saved[0], tmp_path)
    (folder / "ckpt-3" / "manifest.json").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(manifests, "FORMAT", 2)
        write_manifest(folder / "ckpt-3", {"step": 3})
    with pytest.raises(UserError, match=r"expected format 1 in .*ckpt-3. Received: 2. Update tf_llm"):
        restore(spare, folder)


def test_nothing_to_restore(spare, tmp_path):
    assert restore(spare, tmp_path / "new")[0] is None
    (tmp_path / "ckpt-1.partial").mkdir()
    (tmp_path / "ckpt-x").mkdir()
    assert restore(spare, tmp_path)[0] is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "ckpt-400.index",
            r"expected checkpoints in folders .* Received: ckpt-400.index, which an earlier version wrote",
        ),
        ("", r"expected a folder of checkpoints at .*. Received: Not a directory. Choose another folder"),
    ],
)
def test_what_is_no_folder_of_checkpoints_is_no_fresh_start(spare, tmp_path, name, text):
    folder = tmp_path / "checkpoints"
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"")
    with pytest.raises(UserError, match=text):
        restore(spare, folder)


# === What stops the writing ===


def watch_calls(monkeypatch, call):
    """Calls `call(name, argument)` before everything that a save asks of the disk, but for TensorFlow's own writing."""
    for module, name in ((os, "fsync"), (Path, "rename"), (Path, "write_bytes"), (Path, "mkdir"), (shutil, "rmtree")):
        monkeypatch.setattr(module, name, watch_call(getattr(module, name), functools.partial(call, name)))


def watch_call(function, call):
    def watched(*arguments, **settings):
        call(arguments[0])
        return function(*arguments, **settings)

    return watched


@pytest.mark.parametrize("step", [4, 3])
def test_killed_at_any_moment_leaves_the_old_or_the_new_one(three_saved, spare, tmp_path, monkeypatch, step):
    """What lies there before each call is what a process leaves that is killed there; step 3 is there already."""
    folder, left = copy(three_saved[0], tmp_path), []
    trainer, checkpoints, _ = build_run(folder)
    checkpoints.restore()
    copytree = shutil.copytree
    with monkeypatch.context() as patch:
        watch_calls(patch, lambda *_: left.append(read_tree(folder)))
        weights = save_steps(trainer, checkpoints, [step])[step]
    assert shutil.copytree is copytree and len(left) > 8
    old = three_saved[1][3]
    outcomes = []
    for number, tree in enumerate(left):
        place = write_tree(tree, tmp_path / str(number))
        restored, values = restore(spare, place)
        is_new = not np.array_equal(values[0], old[0])
        assert restored == (step if is_new else 3)
        assert_equal(values, weights if is_new else old)
        outcomes.append(is_new)
        again = Checkpoints(place, spare.model, spare.model.optimizer)
        assert again.restore()
        again.step.assign(9)
        again.save()
        assert len(list(place.iterdir())) == 2 and (place / "ckpt-9").exists()  # whatever was left behind is gone
    assert outcomes == sorted(outcomes) and {False, True} == set(outcomes)


def read_tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def write_tree(tree, folder):
    folder.mkdir()
    for name, content in sorted(tree.items()):
        (folder / name).mkdir() if content is None else (folder / name).write_bytes(content)
    return folder


def test_all_is_on_the_disk_before_it_has_its_name_and_before_older_ones_go(three_saved, tmp_path, monkeypatch):
    folder, calls = copy(three_saved[0], tmp_path), []
    trainer, checkpoints, _ = build_run(folder)

    def note(name, argument):
        calls.append((name, os.fstat(argument).st_ino if name == "fsync" else argument))

    with monkeypatch.context() as patch:
        watch_calls(patch, note)
        save_steps(trainer, checkpoints, [4])
    named = calls.index(("rename", folder / "ckpt-4.partial"))
    synced = [argument for name, argument in calls[:named] if name == "fsync"]
    new = folder / "ckpt-4"
    assert set(synced) == {path.stat().st_ino for path in (new, *new.iterdir())} and synced[-1] == new.stat().st_ino
    removed = calls.index(("rename", folder / "ckpt-2"))
    assert [call for call in calls[named + 1 : removed] if call[0] == "fsync"] == [("fsync", folder.stat().st_ino)]


class FullDisk:
    """Raises as a full disk does, from one of the calls on."""

    def __init__(self, first):
        self.first, self.calls = first, 0

    def __call__(self, name, argument):
        self.calls += 1
        if self.calls > self.first and name != "rmtree":
            raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("first", range(7))
def test_disk_that_is_full_at_any_moment(three_saved, tmp_path, monkeypatch, first):
    folder = copy(three_saved[0], tmp_path)
    before = read_all(folder)
    _, checkpoints, _ = build_run(folder)
    checkpoints.restore()
    checkpoints.step.assign(4)
    disk = FullDisk(first)
    text = f"expected to write a checkpoint to {folder}. Received: .*No space left on device. Free some space or .*"
    with monkeypatch.context() as patch:
        watch_calls(patch, disk)
        with pytest.raises(UserError, match=text + "; the newest checkpoint: .*ckpt-3$"):
            checkpoints.save()
    assert disk.calls > first and read_all(folder) == before


def test_full_disk_is_an_error_and_the_older_ones_stay(three_saved, spare, tmp_path):
    folder = copy(three_saved[0], tmp_path)
    before = list_names(folder), read_all(folder)
    _, checkpoints, _ = build_run(folder)
    checkpoints.restore()
    checkpoints.step.assign(4)
    text = rf"expected to write a checkpoint to {folder}. Received: .+. Free some space .* newest checkpoint: .*ckpt-3$"
    with full_disk(), pytest.raises(UserError, match=text):
        checkpoints.save()
    assert (list_names(folder), read_all(folder)) == before  # and no unfinished files
    checkpoints.save()
    step, weights = restore(spare, folder)
    assert step == 4
    assert_equal(weights, three_saved[1][3])


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (tf.errors.ResourceExhaustedError(None, None, "No space left on device"), "No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
        (OSError(28), "28"),
    ],
)
def test_whatever_cannot_be_written_is_named(tmp_path, monkeypatch, error, text):
    def fail(*_):
        raise error

    checkpoints = build_run(tmp_path)[1]
    monkeypatch.setattr(tf.train.Checkpoint, "write", fail)
    with pytest.raises(UserError, match=rf"Received: .*{text}.*; the newest checkpoint: none$"):
        checkpoints.save()
    assert list(tmp_path.iterdir()) == []


def test_the_newest_that_is_named_is_one_that_is_whole(three_saved, tmp_path):
    folder = copy(three_saved[0], tmp_path)
    damage(folder / "ckpt-3" / FILES[1], "cut short")
    checkpoints = build_run(folder)[1]
    checkpoints.step.assign(4)
    with full_disk(), pytest.raises(UserError, match=r"newest checkpoint: .*ckpt-2$"):
        checkpoints.save()


@pytest.mark.parametrize(
    ("code", "fails"), [(errno.EINVAL, False), (errno.EIO, True)], ids=lambda value: errno.errorcode.get(value)
)
def test_file_systems_that_do_not_sync_folders(tmp_path, monkeypatch, code, fails):
    def sync(descriptor, _real=os.fsync):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))
        _real(descriptor)

    checkpoints = build_run(tmp_path)[1]
    monkeypatch.setattr(os, "fsync", sync)
    if fails:
        with pytest.raises(UserError, match=r"Received: .*Input/output error"):
            checkpoints.save()
    else:
        check(checkpoints.save())


# === Which ones are kept ===


@pytest.mark.parametrize(
    ("losses", "keep", "kept"),
    [
        ([None, None, None, None], 2, [3, 4]),
        ([None, None, None, None], 3, [2, 3, 4]),
        ([3.0, 1.0, 2.0, 4.0, 5.0], 2, [2, 4, 5]),
        ([3.0, 1.0, 2.0, 0.5, 5.0], 1, [4, 5]),
        ([1.0, None, None, None], 1, [1, 4]),
        ([1.0, 1.0, 2.0, 2.0], 1, [2, 4]),
        ([float("nan"), 7.0, float("nan"), float("nan")], 1, [2, 4]),
        ([5.0, 4.0, 3.0], 1, [3]),
    ],
    ids=str,
)
def test_the_newest_and_the_best_are_kept(tmp_path, losses, keep, kept):
    model = build_tiny_model(TrainingConfig())
    for step, loss in enumerate(losses, 1):
        checkpoints = Checkpoints(tmp_path, model, keep=keep)  # the losses are known from the folder alone
        checkpoints.step.assign(step)
        checkpoints.save(loss)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"ckpt-{step}" for step in kept]


def test_the_best_on_request(spare, tmp_path, caplog):
    trainer, checkpoints, _ = build_run(tmp_path)
    weights = save_steps(trainer, checkpoints, range(1, 6), losses=[3.0, 1.0, 2.0, 4.0, None])
    for which, expected in (("best", 2), ("newest", 5)):
        step, restored = restore(spare, tmp_path, which)
        assert step == expected and not messages(caplog)
        assert_equal(restored, weights[expected])
    damage(tmp_path / "ckpt-2" / FILES[0], "zeros")
    assert restore(spare, tmp_path, "best")[0] == 4
    damage(tmp_path / "ckpt-4" / FILES[1], "gone")
    caplog.clear()
    assert restore(spare, tmp_path, "best")[0] == 5
    assert [message.partition(" cannot")[0][-6:] for message in messages(caplog)] == ["ckpt-2", "ckpt-4"]
    with pytest.raises(ValueError, match=r"which expected one of \['best', 'newest'\]. Received: 'last'"):
        checkpoints.restore("last")


def test_older_checkpoints_of_higher_steps_do_not_push_out_what_is_written(three_saved, tmp_path):
    folder = copy(three_saved[0], tmp_path)
    checkpoints = build_run(folder)[1]
    checkpoints.step.assign(1)
    check(checkpoints.save())
    assert sorted(path.name for path in folder.iterdir()) == ["ckpt-1", "ckpt-2", "ckpt-3"]


# === In the background ===


@pytest.fixture
def gate(monkeypatch):
    """An event without which no manifest is written."""
    event = threading.Event()

    def wait_and_write(folder, about):
        assert event.wait(60)
        write_manifest(folder, about)

    monkeypatch.setattr(checkpoints_module, "write_manifest", wait_and_write)
    yield event
    event.set()


def test_training_goes_on_while_a_checkpoint_is_written(spare, tmp_path, gate):
    trainer, checkpoints, _ = build_run(tmp_path / "unwaited")
    batches = iter(make_tiny_batches())
    take_step(trainer, next(batches))
    checkpoints.step.assign(1)
    before = weights_of(trainer)
    path = Path(checkpoints.save(wait=False))
    assert not path.exists()
    for _ in range(3):
        take_step(trainer, next(batches))
    checkpoints.step.assign(4)
    assert not np.array_equal(weights_of(trainer)[0], before[0]) and not path.exists()
    gate.set()
    checkpoints.wait()
    step, weights = restore(spare, tmp_path / "unwaited")
    assert step == 1
    assert_equal(weights, before)
    # Saved from there, and waited for, it is the same to the last bit.
    waited = Checkpoints(tmp_path / "waited", spare.model, spare.model.optimizer)
    waited.step.assign(1)
    waited.save()
    assert read_all(tmp_path / "waited") == read_all(tmp_path / "unwaited")


def test_the_next_save_waits_for_the_one_before(tmp_path, gate):
    trainer, checkpoints, _ = build_run(tmp_path)
    checkpoints.step.assign(1)
    checkpoints.save(wait=False)
    threading.Timer(0.2, gate.set).start()
    weights = save_steps(trainer, checkpoints, [2])[2]  # must not reach into what is still to be written
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["ckpt-1", "ckpt-2"]
    first, second = (read_manifest(path) for path in sorted(tmp_path.iterdir()))
    assert (first["step"], second["step"]) == (1, 2) and first["files"] != second["files"]
    assert restore(trainer, tmp_path)[0] == 2
    assert_equal(weights_of(trainer), weights)


def test_an_error_in_the_background_is_raised_by_wait_once(three_saved, tmp_path):
    folder = copy(three_saved[0], tmp_path)
    before = read_all(folder)
    checkpoints = build_run(folder)[1]
    checkpoints.step.assign(4)
    with full_disk():
        checkpoints.save(wait=False)
        with pytest.raises(UserError, match=r"expected to write a checkpoint to .* the newest checkpoint: .*ckpt-3$"):
            checkpoints.wait()
    checkpoints.wait()
    assert read_all(folder) == before


@pytest.mark.parametrize("is_full", [True, False])
def test_behind_an_error_in_the_background_the_next_one_is_waited_for(three_saved, tmp_path, caplog, is_full):
    folder = copy(three_saved[0], tmp_path)
    checkpoints = build_run(folder)[1]
    checkpoints.step.assign(4)
    with full_disk():
        checkpoints.save(wait=False)
        checkpoints.step.assign(5)
        if is_full:
            with pytest.raises(UserError, match=r"expected to write a checkpoint"):
                checkpoints.save(wait=False)
        else:
            checkpoints._pending.exception()
    if not is_full:
        check(checkpoints.save(wait=False))
    (message,) = messages(caplog)
    assert message.startswith("expected to write a checkpoint") and message.endswith("ckpt-3. Saving step 5")


def test_ctrl_c_while_waiting_loses_nothing(tmp_path, monkeypatch):
    checkpoints = build_run(tmp_path)[1]

    def interrupt(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints_module.concurrent.futures, "wait", interrupt)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.save()
    checkpoints.wait()
    check(tmp_path / "ckpt-0")


# === In processes of their own ===


def _build(strategy, folder, seed=0):
    config = TrainingConfig(learning_rate=0.05, steps=2)
    with strategy.scope():
        model = build_tiny_model(config, seed=seed)
        return Trainer(model, strategy, config), Checkpoints(folder, model, model.optimizer), Notes()


def _compare_restored(strategy, folder):
    """Two steps, restored by other objects: what differs, and where the copies lie."""
    trainer, checkpoints, notes = _build(strategy, folder)
    with strategy.scope():
        train(trainer, checkpoints, notes)
        saved = weights_of(trainer)
        other, restored, _ = _build(strategy, folder, seed=99)
        assert restored.restore() and int(restored.step) == 2
    replicas = [
        tf.nest.flatten(strategy.experimental_local_results(variable.value))
        for variable in [*other.model.variables, *other.model.optimizer.variables]
    ]
    return {
        "unequal": sum(
            not np.array_equal(value, one) for value, each in zip(saved, replicas, strict=True) for one in each
        ),
        "replicas": len(replicas[0]),
        "model": sorted({one.device[-5:] for each in replicas for one in each}),
        "copies": sorted({copied.device[-5:] for copied in checkpoints._staged.model}),
    }


def main(folder, task):
    """`killed`: at the second fsync of the third save. `ended`: prints a comparison, and leaves a save unfinished."""
    if task == "ended":
        make_two_devices()
        devices = {
            "second": tf.distribute.OneDeviceStrategy("/cpu:1"),
            "mirrored": tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"]),
        }
        print(json.dumps({name: _compare_restored(chosen, folder / name) for name, chosen in devices.items()}))
    trainer, checkpoints, _ = build_run(folder / task)
    save_steps(trainer, checkpoints, (1, 2))
    np.savez(folder / f"{task}.npz", *weights_of(trainer))
    begun, calls = threading.Event(), itertools.count(1)

    def sync(descriptor):
        begun.set()
        if task == "killed" and next(calls) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.1)

    os.fsync = sync
    if task == "killed":
        save_steps(trainer, checkpoints, [3])
    checkpoints.step.assign(3)
    checkpoints.save(wait=False)
    begun.wait(60)
    assert not (folder / task / "ckpt-3").exists()


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """Both of them, at the same time: task -> (exit status, what it printed), and their folder."""
    folder = tmp_path_factory.mktemp("processes")
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "2"}
    running = {
        task: subprocess.Popen(
            [sys.executable, __file__, str(folder), task],
            stdout=subprocess.PIPE,
            stderr=(folder / f"{task}.err").open("w"),
            text=True,
            env=environment,
        )
        for task in ("killed", "ended")
    }
    printed = {task: process.communicate(timeout=300)[0] for task, process in running.items()}
    return folder, {task: (running[task].returncode, printed[task]) for task in running}


def test_killed_within_a_save(processes, spare):
    folder, ended = processes
    assert ended["killed"][0] == -signal.SIGKILL, (folder / "killed.err").read_text()[-2000:]
    assert sorted(path.name for path in (folder / "killed").iterdir()) == ["ckpt-1", "ckpt-2", "ckpt-3.partial"]
    step, weights = restore(spare, folder / "killed")
    assert step == 2
    with np.load(folder / "killed.npz") as saved:
        assert_equal(weights, list(saved.values()))


def test_the_end_of_a_process_waits_for_what_is_being_written(processes, spare):
    folder, ended = processes
    assert ended["ended"][0] == 0, (folder / "ended.err").read_text()[-2000:]
    assert restore(spare, folder / "ended")[0] == 3


@pytest.mark.parametrize(("name", "devices"), [("second", ["CPU:1"]), ("mirrored", ["CPU:0", "CPU:1"])])
def test_every_replica_is_restored_and_the_copies_are_no_burden_to_a_device(processes, name, devices):
    result = json.loads(processes[1]["ended"][1].splitlines()[-1])[name]
    assert result == {"unequal": 0, "replicas": len(devices), "model": devices, "copies": ["CPU:0"]}


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
