"""Folders of models as transformers writes them: found here or on the Hugging Face hub, their tensors read and written.

What such a folder holds may come from anyone. Only JSON and safetensors are read, never a pickle, which could run code;
and no file outside of the folder, whatever an index names.
"""

import importlib
import json
from pathlib import Path

from tf_llm.contracts import UserError
from tf_llm.files import write_atomically

CONFIG, WEIGHTS, INDEX, PIECES = "config.json", "model.safetensors", "model.safetensors.index.json", "spiece.model"
GENERATION, TOKENIZER = "generation_config.json", "tf_llm_tokenizer.json"
SHARDS = "model-*-of-*.safetensors"
LARGEST_JSON = 50_000_000  # bytes; the index of a model of a hundred thousand tensors has a fifth of it
FLOATS = ("BF16", "F16", "F32", "F64")

# An error of huggingface_hub -> (what was expected, what was received, what to do). The first that fits counts.
HUB_ERRORS = (
    ("HFValidationError", "a folder that is there, or a model's name on the hub", "neither", "Check the name"),
    (
        "GatedRepoError",
        "leave to read this model",
        "none: it is gated",
        "Accept its terms on its page, then give a token= or set HF_TOKEN",
    ),
    (
        "RepositoryNotFoundError",
        "a folder that is there, or a model's name on the hub",
        "a name that the hub does not show",
        "Check the name; a private model needs a token= or HF_TOKEN",
    ),
    (
        "RevisionNotFoundError",
        "a branch, tag or commit of this model",
        "one that it has not",
        "Leave revision= out for the newest",
    ),
    (
        "LocalEntryNotFoundError",
        "this model in the cache, or a hub that answers",
        "neither",
        "Go online (HF_HUB_OFFLINE and local_files_only off), or name a folder that holds the files",
    ),
)


def find_folder(name, revision=None, token=None, local_files_only=None):
    """The folder of a model: `name` itself, or where huggingface_hub keeps what it has downloaded of `name`.

    Args:
        name: a folder, or a model's name on the hub.
        revision: a branch, tag or commit on the hub.
        token: for what is not public; None is what huggingface_hub finds (HF_TOKEN, or a login).
        local_files_only: True takes what is in the cache and asks nobody; so does HF_HUB_OFFLINE=1.

    Raises:
        UserError: there is no such model, or it cannot be reached.
    """
    if Path(name).is_dir():
        return Path(name)
    hub = import_extra("huggingface_hub")
    patterns = [CONFIG, GENERATION, WEIGHTS, INDEX, SHARDS, PIECES, TOKENIZER]
    try:
        return Path(
            hub.snapshot_download(
                str(name),
                revision=revision,
                token=token,
                local_files_only=bool(local_files_only),
                allow_patterns=patterns,
            )
        )
    except Exception as error:  # also what the library for HTTP raises, which differs between releases
        kinds = {kind.__name__ for kind in type(error).__mro__}
        unknown = " ".join(str(error).split()) or type(error).__name__
        unknown = ("", "to download this model", unknown, "Try again: what is complete stays in the cache")
        _, expected, received, remedy = next((row for row in HUB_ERRORS if row[0] in kinds), unknown)
        revised = f" at {revision}" if revision else ""
        raise UserError(f"expected {expected}: {name}{revised}. Received: {received}. {remedy}") from error


def read_json(path):
    """The dictionary in a file that may come from anyone. Raises UserError where there is none."""
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise ValueError(f"{path.stat().st_size:,} bytes")
        saved = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(saved, dict):
            raise ValueError(f"a {type(saved).__name__}")
        return saved
    except OSError as error:
        raise UserError(
            f"expected a model's {path.name} in {path.parent}. Received: {error.strerror}. Name the folder of a model, "
            "or its name on the hub"
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"expected a JSON object in {path}. Received: {error}. Remove the file and get it again"
        ) from error


class StoredTensor:
    """A tensor in a file, read when numpy asks for it.

    Attributes:
        shape: a tuple.
        dtype: safetensors' name, such as "BF16".
    """

    def __init__(self, file, name):
        self._file, self._name = file, name
        stored = file.get_slice(name)
        self.shape, self.dtype = tuple(stored.get_shape()), stored.get_dtype()

    def __array__(self, dtype=None, copy=None):
        array = self._file.get_tensor(self._name)
        return array if dtype is None else array.astype(dtype)


def open_tensors(folder):
    """All tensors of a model's folder: {name: `StoredTensor`}. Nothing but names and shapes is read yet.

    Raises:
        UserError: there are none, a file is damaged, or an index names a file outside of the folder.
    """
    safetensors = import_extra("safetensors")
    import_extra("ml_dtypes")  # tells numpy what bfloat16 is
    tensors = {}
    for name in _list_files(folder):
        try:
            file = safetensors.safe_open(folder / name, framework="np")
            found = {key: StoredTensor(file, key) for key in file.keys()}  # noqa: SIM118, it is no dictionary
        except (OSError, safetensors.SafetensorError) as error:
            raise UserError(
                f"expected a file of tensors at {folder / name}. Received: {' '.join(str(error).split())}. Remove the "
                "file and get it again"
            ) from error
        faults = [key for key in found if key in tensors or found[key].dtype not in FLOATS]
        if faults:
            raise UserError(
                f"expected tensors of {', '.join(FLOATS)}, each in one file, in {folder}. Received: {faults[0]} of "
                f"{found[faults[0]].dtype} in {name}. Quantised models are not read; choose another one"
            )
        tensors |= found
    return tensors


def _list_files(folder):
    if (folder / WEIGHTS).is_file():
        return [WEIGHTS]
    if not (folder / INDEX).is_file():
        others = sorted(path.name for path in folder.iterdir())[:10] if folder.is_dir() else []
        raise UserError(
            f"expected {WEIGHTS}, or {INDEX} and its files, in {folder}. Received: {', '.join(others) or 'nothing'}. A "
            "pytorch_model.bin is a pickle, which can run code, and is not read: choose a revision with safetensors "
            "(revision='refs/pr/…'), or let transformers save the model anew"
        )
    files = read_json(folder / INDEX).get("weight_map")
    files = sorted(set(map(str, files.values()))) if isinstance(files, dict) else []
    # A name alone, on every system: no folder, no drive, no way up.
    foreign = [name for name in files if not name.endswith(".safetensors") or set(name) & set("/\\:")]
    if foreign or not files:
        raise UserError(
            f"expected the weight_map of {folder / INDEX} to name .safetensors files beside it. Received: "
            f"{(foreign or ['none'])[0]!r}. Do not trust this model"
        )
    return files


def write_folder(folder, settings, sizes, export, max_shard_bytes):
    """Writes a model: its tensors, in files of at most so many bytes, then config.json, so that it is there or not.

    Args:
        folder: is made if need be; the tensors of another model in it are removed.
        settings: the contents of config.json.
        sizes: {name: bytes} of all tensors.
        export: names -> {name: array}; called for each file.
        max_shard_bytes: a single larger tensor has a file of its own.
    """
    save_file = import_extra("safetensors.numpy").save_file
    shards, room = [], 0
    for name, size in sizes.items():
        if size > room or not shards:
            shards.append([])
            room = max_shard_bytes
        shards[-1].append(name)
        room -= size
    names = [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    names = names if len(shards) > 1 else [WEIGHTS]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in [folder / CONFIG, folder / WEIGHTS, folder / INDEX, *folder.glob(SHARDS)]:
            old.unlink(missing_ok=True)
        for name, tensors in zip(names, shards, strict=True):
            save_file(export(tensors), folder / name, metadata={"format": "pt"})  # a mark that transformers asks for
    except Exception as error:  # of safetensors, which says nothing of its kind where the disk is full
        raise UserError(
            f"expected to write a model of {sum(sizes.values()):,} bytes to {folder}. Received: {error}. Free some "
            "space or choose another folder"
        ) from error
    if len(shards) > 1:
        files = {tensor: name for name, tensors in zip(names, shards, strict=True) for tensor in tensors}
        write_json(folder / INDEX, {"metadata": {"total_size": sum(sizes.values())}, "weight_map": files})
    starts = {name: settings[name] for name in ("decoder_start_token_id", "eos_token_id", "pad_token_id")}
    write_json(folder / GENERATION, starts)
    write_json(folder / CONFIG, settings)


def write_json(path, contents):
    """Writes a dictionary as JSON, whole or not at all."""
    write_atomically(path, json.dumps(contents, indent=2, sort_keys=True).encode() + b"\n")


def import_extra(name):
    """A module of the extra `hugging_face`. Raises UserError where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"expected the package {name.partition('.')[0]}. Received: {error}. Install it with "
            "pip install 'tf_llm[hugging_face]'"
        ) from error
