"""Where an index lies on the disk, and how a new one takes the place of an old one.

    folder/
      current.json        which generation is in use
      index-000001/
        settings.json     what cannot change without another generation
        lexical/          tantivy's files, which change by its own atomic commits
        vectors.f32       rows, added and never changed (vectors.py)

An update happens inside a generation: rows are added, then tantivy commits, which is one renaming of one file. What
must change all entries at once (another encoder, rows that nobody needs any more) is a new generation, made beside the
old one and put in its place by one renaming, too. So at every moment there is a whole index, whoever is killed when.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import shutil
from pathlib import Path

from tf_llm.contracts import UserError
from tf_llm.files import write_atomically

CURRENT, SETTINGS, LEXICAL, VECTORS = "current.json", "settings.json", "lexical", "vectors.f32"
GENERATION = re.compile(r"index-(\d{6,})")
FORMAT = 1  # of what lies on the disk


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What a generation was made with."""

    language: str = "english"  # of analysis.py
    dimensions: int = 0  # of the vectors; 0 for an index of words alone
    probe: tuple[float, ...] = ()  # the encoder's vector of a fixed text: by it another encoder is noticed
    dense_weight: float = 1.0  # of the dense ranking beside the lexical one, see fusion.py


def find_current(folder: Path) -> Path | None:
    """The folder of the generation in use; None where there is no index.

    Raises:
        UserError: there is something else.
    """
    try:
        content = json.loads((folder / CURRENT).read_bytes())
        if content["format"] != FORMAT or not GENERATION.fullmatch(content["generation"]):
            raise ValueError(f"format {content['format']}")
        return folder / content["generation"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"expected an index in {folder}. Received: a {CURRENT} that cannot be read ({error!r}). Name another "
            "folder, or remove this one and index again"
        ) from error


def load_settings(generation: Path) -> Settings:
    """What a generation was made with. Raises UserError where that cannot be read."""
    try:
        content = json.loads((generation / SETTINGS).read_bytes())
        return Settings(**content | {"probe": tuple(content["probe"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"expected the settings of an index in {generation}. Received: {error!r}. Remove the folder and index again"
        ) from error


def begin_generation(folder: Path, settings: Settings) -> Path:
    """Makes the folder of the next generation, which nobody uses yet. Call it under the lock of the folder."""
    number = max((int(match[1]) for match in map(GENERATION.fullmatch, list_names(folder)) if match), default=0) + 1
    generation = folder / f"index-{number:06}"
    try:
        generation.mkdir()
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}; choose another folder") from error
    write_settings(generation, settings)
    return generation


def write_settings(generation: Path, settings: Settings) -> None:
    """Says what a generation is made with, in place of what was said before."""
    write_atomically(generation / SETTINGS, json.dumps(dataclasses.asdict(settings)).encode())


def use_generation(generation: Path) -> None:
    """From now on this generation is the index, and the others are removed."""
    content = {"format": FORMAT, "generation": generation.name}
    write_atomically(generation.parent / CURRENT, json.dumps(content).encode())
    remove_others(generation)


def remove_others(generation: Path) -> None:
    """Removes what was in use before, and what somebody began who was killed. Call it under the lock of the folder.

    Whoever reads an old generation has its files open; on Windows, they stay until a later call.
    """
    for name in list_names(generation.parent):
        if (GENERATION.fullmatch(name) and name != generation.name) or name.endswith(".partial"):
            path = generation.parent / name
            shutil.rmtree(path, ignore_errors=True)
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def list_names(folder: Path) -> list[str]:
    """What lies in a folder."""
    return [path.name for path in folder.iterdir()]


def mark_state(folder: Path, generation: Path) -> tuple:
    """Something that changes whenever another process commits: small files, each replaced as a whole."""
    marks = []
    for path in (folder / CURRENT, generation / SETTINGS, generation / LEXICAL / "meta.json"):
        try:
            status = path.stat()
            marks.append((status.st_ino, status.st_mtime_ns, status.st_size))
        except OSError:
            marks.append(None)
    return tuple(marks)
