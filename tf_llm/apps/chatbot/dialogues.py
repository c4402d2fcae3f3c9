"""Conversations of others, to tune a model on: three forms in, pairs of a source and a target out.

    JSON Lines      {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}
                    OpenAI's form, https://platform.openai.com/docs/guides/supervised-fine-tuning
    data sets       of the Hugging Face Hub, with that in a column `messages`, ShareGPT's form in `conversations`
                    ({"from": "human", "value": "…"}), or a question and an answer in two columns
    YAML            of ChatterBot, https://github.com/gunthercox/chatterbot-corpus: lists of what is said in turn

A conversation is a tuple of `Message`s. What is no conversation costs itself, and is counted by its reason.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tf_llm.apps.chatbot.packing import pack_messages
from tf_llm.apps.chatbot.prompts import ROLES, build_prompt
from tf_llm.contracts import UserError
from tf_llm.crawl.datasets import import_datasets, refuse
from tf_llm.crawl.json_lines import read_lines

MAX_LINE = 4 << 20  # bytes of one conversation
MAX_FILE = 64 << 20  # bytes of a YAML file, which is read as a whole
ROLES_OF = {"human": "user", "gpt": "assistant", **{role: role for role in ROLES}}  # ShareGPT's names, and OpenAI's
QUESTIONS, ANSWERS = ("question", "instruction", "prompt"), ("answer", "response", "output", "completion")


class Message(NamedTuple):
    """What one of them said."""

    role: str  # "user", "assistant", "system" or "developer"
    text: str
    is_learned: bool = True  # of the assistant's: whether it is to be learned; OpenAI's `weight`


class BadDialogueError(ValueError):
    """Why something is no conversation, in a short fixed phrase."""


def read_dialogues(name: str | Path, rejections: Counter[str] | None = None, **settings) -> Iterator[tuple]:
    """Yields the conversations of a file, a folder of YAML files, or a data set, by what its name looks like.

    Args:
        name: `*.jsonl`, `*.yml`, a folder with such, or the name of a data set, "owner/name".
        rejections: a Counter to which is added why something was no conversation.
        settings: see `read_data_set`.

    Raises:
        UserError: there is no such thing, a package is missing, or no conversation is left.
    """
    rejections, path, count = Counter() if rejections is None else rejections, Path(name), 0
    if path.suffix in (".yml", ".yaml") or (path.is_dir() and any(path.glob("*.yml"))):
        dialogues = read_chatterbot(sorted(path.glob("*.yml")) if path.is_dir() else [path], rejections)
    elif path.is_file() or path.suffix in (".jsonl", ".ndjson", ".json"):
        dialogues = read_json_lines(path, rejections)
    else:
        dialogues = read_data_set(str(name), rejections, **settings)
    for count, dialogue in enumerate(dialogues, start=1):  # noqa: B007 - counts
        yield dialogue
    if not count:
        received = ", ".join(f"{often} × {reason}" for reason, often in rejections.most_common(3)) or "nothing"
        raise UserError(
            f"expected conversations in {name}. Received: {received}. The forms that are read stand in "
            "tf_llm/apps/chatbot/dialogues.py"
        )


def read_json_lines(path: Path, rejections: Counter[str]) -> Iterator[tuple]:
    """Yields the conversations of a file of JSON Lines."""
    try:
        with Path(path).open("rb") as file:
            for _, line in read_lines(file, MAX_LINE):
                try:
                    if line is None:
                        raise BadDialogueError("too large")
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise BadDialogueError("no object")
                    yield parse_messages(row.get("messages"))
                except BadDialogueError as error:
                    rejections[str(error)] += 1
                except (ValueError, RecursionError):
                    rejections["bad JSON"] += 1
    except OSError as error:
        raise UserError(
            f"expected conversations in {path}. Received: {error.strerror}. Name a file of JSON Lines"
        ) from error


def read_data_set(
    name: str,
    rejections: Counter[str],
    split: str = "train",
    config: str | None = None,
    column: str | None = None,
    revision: str | None = None,
) -> Iterator[tuple]:
    """Yields the conversations of a data set of the Hugging Face Hub, or of a folder in one of its formats.

    Args:
        column: where they stand; None is the first of `messages` and `conversations`, or the columns of a question and
            an answer.
    """
    datasets = import_datasets()
    with refuse(f"the split {split!r} of the data set {name}", "its name, config and split"):
        rows = iter(datasets.load_dataset(name, config, split=split, streaming=True, revision=revision))
    while True:
        with refuse(f"the data set {name}", "the network"):
            row = next(rows, None)
        if row is None:
            return
        try:
            yield parse_row(row, column)
        except BadDialogueError as error:
            rejections[str(error)] += 1


def parse_row(row: dict[str, Any], column: str | None = None) -> tuple[Message, ...]:
    """The conversation in a row of a data set.

    >>> parse_row({"question": "Two and two?", "answer": "Four."})[1].text
    'Four.'
    """
    names = [name for name in (column, "messages", "conversations") if name in row]
    if names:
        return parse_messages(row[names[0]])
    sides = [next((row[name] for name in names if name in row), None) for names in (QUESTIONS, ANSWERS)]
    if None in sides:
        raise BadDialogueError("no messages")
    question, answer = sides
    return parse_messages([{"role": "user", "content": question}, {"role": "assistant", "content": answer}])


def parse_messages(messages: Any) -> tuple[Message, ...]:
    """The conversation in a list of messages, OpenAI's or ShareGPT's; raises BadDialogueError with the reason.

    >>> parse_messages([{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}])[0]
    Message(role='user', text='Hi', is_learned=True)
    """
    if not isinstance(messages, list) or not messages:
        raise BadDialogueError("no messages")
    found = []
    for message in messages:
        if not isinstance(message, dict):
            raise BadDialogueError("a message that is no object")
        role = message.get("role", message.get("from"))
        if role in ("tool", "function") or message.get("tool_calls") or message.get("function_call"):
            raise BadDialogueError("a tool's message")
        if not isinstance(role, str) or role not in ROLES_OF:
            raise BadDialogueError("a role that is unknown")
        text = join_parts(message.get("content", message.get("value")))
        if not text:
            raise BadDialogueError("a message without text")
        found.append(Message(ROLES_OF[role], text, message.get("weight") != 0))
    return require_answer(found)


def join_parts(content: Any) -> str:
    """The text of a message, which OpenAI's form may hold in parts; what is no text has none."""
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "".join(parts) if len(parts) == len(content) and all(isinstance(p, str) for p in parts) else None
    return content.encode("utf-8", "ignore").decode().strip() if isinstance(content, str) else ""


def require_answer(messages: Iterable[Message]) -> tuple[Message, ...]:
    """The same; raises BadDialogueError where nothing in it can be learned."""
    messages = tuple(messages)
    said = [number for number, message in enumerate(messages) if message.role == "user"]
    answered = [n for n, message in enumerate(messages) if message.role == "assistant" and message.is_learned]
    if not said or not answered or answered[-1] < said[0]:
        raise BadDialogueError("no answer to a user")
    return messages


def read_chatterbot(paths: Iterable[Path], rejections: Counter[str]) -> Iterator[tuple]:
    """Yields the conversations of ChatterBot's corpus: the user and the assistant say one line each in turn."""
    try:
        import yaml
    except ImportError as error:
        raise UserError(
            f'expected the package PyYAML. Received: {error}. Install it: pip install "tf_llm[chatbot]"'
        ) from error
    for path in paths:
        try:
            if path.stat().st_size > MAX_FILE:
                raise UserError(f"expected at most {MAX_FILE >> 20} MB in {path}. Received: more. Split the file")
            content = yaml.safe_load(path.read_bytes())
        except OSError as error:
            raise UserError(
                f"expected conversations in {path}. Received: {error.strerror}. Name a YAML file"
            ) from error
        # Of safe_load: its own errors, and those of Python's types for what looks like a date or a number.
        except (yaml.YAMLError, ValueError, RecursionError, TypeError):
            rejections["bad YAML"] += 1
            continue
        dialogues = content.get("conversations") if isinstance(content, dict) else None
        if not isinstance(dialogues, list):
            rejections["no conversations"] += 1
            continue
        for lines in dialogues:
            try:
                yield parse_lines(lines)
            except BadDialogueError as error:
                rejections[str(error)] += 1


def parse_lines(lines: Any) -> tuple[Message, ...]:
    """The conversation of lines that are said in turn. A number, a date or a yes of YAML is no text."""
    if not isinstance(lines, list) or len(lines) < 2:
        raise BadDialogueError("no answer to a user")
    texts = [join_parts(line) if isinstance(line, str) else "" for line in lines]
    if not all(texts):
        raise BadDialogueError("a message without text")
    return require_answer(Message(("user", "assistant")[n % 2], text) for n, text in enumerate(texts))


def make_pairs(
    dialogues: Iterable[tuple[Message, ...]],
    count_tokens: Callable[[str], int],
    limit: int,
    counts: Counter[str] | None = None,
    build_prompt: Callable = build_prompt,
) -> Iterator[tuple[str, str]]:
    """Yields (prompt, answer) of every answer of the assistant, packed as a `Chatbot` packs the same conversation.

    Args:
        dialogues: as the readers yield them.
        count_tokens, limit, build_prompt: see `packing.pack_messages`.
        counts: a Counter to which "answers", "turns left out" and "questions cut" are added.

    >>> dialogue = [Message("user", "Two and two?"), Message("assistant", "Four.")]
    >>> list(make_pairs([dialogue], len, 100))
    [('Two and two?', 'Four.')]
    """
    counts = Counter() if counts is None else counts
    for messages in dialogues:
        for number, message in enumerate(messages):
            before = [(other.role, other.text) for other in messages[:number]]
            if message.role != "assistant" or not message.is_learned or not before:
                continue
            if not any(role == "user" for role, _ in before):  # a greeting, which answers nobody
                continue
            packed = pack_messages(before, count_tokens, limit, build_prompt)
            counts["answers"] += 1
            counts["turns left out"] += packed.dropped
            counts["questions cut"] += packed.excess > 0
            yield packed.prompt, message.text
