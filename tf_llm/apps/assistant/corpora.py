"""Requests that others have collected, as `Utterance`s: SNIPS and CLINC150.

Both are small enough to be copied into a folder:

    snips/{train,valid,test}/{seq.in,seq.out,label}   https://github.com/sonos/nlu-benchmark, as Goo et al. (2018) split
                                                      it: a request, its tags and its intent in the same line of each
    clinc150/data_full.json                           https://github.com/clinc/oos-eval: {"train": [[text, intent], …],
                                                      "val": …, "oos_train": …, "oos_val": …}

    >>> read_tags("set a timer for ten minutes".split(), "O O O O B-duration I-duration".split())
    (('set a timer for ', None), ('ten minutes', 'duration'))
"""

import json
from pathlib import Path

from tf_llm.apps.assistant.calls import OUT_OF_SCOPE, Utterance
from tf_llm.contracts import UserError

SNIPS_FILES = ("seq.in", "seq.out", "label")


def read_snips(folder):
    """The utterances of a part of SNIPS.

    Args:
        folder: such as snips/train.

    Returns:
        A list of `Utterance`s, whose words stand one space apart.

    Raises:
        UserError: a file is missing, or the three do not fit together.
    """
    folder = Path(folder)
    columns = [_read(folder / name).splitlines() for name in SNIPS_FILES]
    if len({len(column) for column in columns}) > 1:
        received = ", ".join(f"{len(column)} in {name}" for name, column in zip(SNIPS_FILES, columns, strict=True))
        raise UserError(f"expected as many lines in each file of {folder}. Received: {received}. Copy them again")
    utterances = []
    for number, (said, tagged, intent) in enumerate(zip(*columns, strict=True), 1):
        words, tags = said.split(), tagged.split()
        if len(words) != len(tags) or not words:
            raise UserError(
                f"expected a tag for each word in line {number} of {folder}. Received: {len(words)} words and "
                f"{len(tags)} tags. Copy the files again"
            )
        utterances.append(Utterance(intent.strip(), read_tags(words, tags)))
    return utterances


def read_tags(words, tags):
    """The chunks of an utterance from tags B-slot, I-slot and O (Ramshaw and Marcus 1995), one for each word.

    An I- that continues nothing begins a slot, as in conlleval.
    """
    pieces, before = [], None  # [words, slot] each
    for word, tag in zip(words, tags, strict=True):
        begins, slot = tag[:2] == "B-", tag[2:] or None
        if pieces and slot == before and not begins:
            pieces[-1][0].append(word)
        else:
            pieces.append([[word], slot])
        before = slot
    chunks = []
    for words_of, slot in pieces:
        if chunks:  # the space between two chunks belongs to no slot
            if chunks[-1][1] is None:
                chunks[-1] = (chunks[-1][0] + " ", None)
            elif slot is not None:
                chunks.append((" ", None))
        text = " ".join(words_of)
        chunks.append((" " + text if slot is None and chunks else text, slot))
    return tuple(chunks)


def read_clinc(path, part):
    """The utterances of a part of CLINC150, those out of scope among them; none has slots.

    Args:
        path: such as clinc150/data_full.json.
        part: "train", "val" or "test".

    Raises:
        UserError: the file is missing, or has no such part.
    """
    try:
        whole = json.loads(_read(Path(path)))
        rows = whole[part] + whole[f"oos_{part}"]
        return [Utterance(OUT_OF_SCOPE if name == "oos" else name, ((text, None),)) for text, name in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"expected the parts {part!r} and 'oos_{part}' of CLINC150 in {path}, pairs of text and intent. Received: "
            f"{error!r}. Name a file such as data_full.json"
        ) from error


def _read(path):
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"expected a file of requests at {path}. Received: {error}. Copy it there") from error
