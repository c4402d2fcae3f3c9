"""What all tokenizers share: the names of the sentinels, and the file on disk.

Sentinels stand for no text (contracts.py). Where a decoded text has to show one it is written as T5 writes it.
"""

from __future__ import annotations

import json
from typing import Any

from tf_llm.files import write_atomically


def name_sentinels(count: int) -> list[str]:
    """The sentinels in the order of their ids, which are the last of a vocabulary: the very last is sentinel 0.

    Raises ValueError for what is no count.

    >>> name_sentinels(3)
    ['<extra_id_2>', '<extra_id_1>', '<extra_id_0>']
    """
    if not isinstance(count, int) or count < 0:
        raise ValueError(f"num_sentinels expected a whole number of at least 0. Received: {count!r}")
    return [f"<extra_id_{number}>" for number in reversed(range(count))]


def write_tokenizer(path: str, **parts: Any) -> None:
    """Writes the parts of a tokenizer as JSON, whole or not at all; `tokenizers.load_tokenizer` reads them."""
    write_atomically(path, json.dumps(parts, ensure_ascii=False, indent=0).encode())
