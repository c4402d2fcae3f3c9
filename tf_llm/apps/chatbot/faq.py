"""Customer support from a list of questions and answers: an answer is quoted, or the question goes to a person.

    question,answer
    Where is my order?,"You find it under ""My orders""."
    How can I track a parcel?,"You find it under ""My orders""."

Nothing is made up: what is said stands in the file, word for word. The question that is most like the one asked
decides, by the words they share (words.py) and, where there is a model, by its encoder's vectors. When that likeness is
below a threshold, or another answer's question is nearly as like, a person takes over.

The default threshold is for short questions in English. `choose_threshold` finds the one for a file: from questions of
which one knows the answer, or from the file itself, each of whose questions is asked as if it were not there.
"""

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tf_llm.apps.chatbot.words import WordIndex
from tf_llm.contracts import UserError

THRESHOLD = 0.5  # of the likeness in [0, 1]; half of what is asked, weighed by how rare the words are
MARGIN = 0.02  # by which the best answer must be more like than the next other one
MOST_ASKED = 500  # questions of a file, spread evenly, by which its threshold is chosen
PRECISION = 0.9  # of what is answered, the share that has to be right where a threshold is chosen
MAX_BYTES = 64 << 20
LONGEST = 100_000  # characters of a question or an answer; the csv module's own limit is one of the whole process
COLUMNS = ("question", "answer")


class Match(NamedTuple):
    """What the file has to say to a question."""

    answer: str  # verbatim
    question: str  # under which it stands
    confidence: float  # in [0, 1]
    is_sure: bool  # whether it may be said; else a person is asked


class Faq:
    """Questions and their answers.

    Args:
        rows: (question, answer) each; an answer may stand under several questions, which helps.
        embed: what makes vectors of texts, list of N -> float32 [N, D] of length 1, such as `Generator.embed`, or None.
            Likeness is then the mean of that of words and that of vectors.
        threshold: see `choose_threshold`.
        rejections: what `open` has counted.

    >>> faq = Faq([("Where is my order?", "Under My orders."), ("How do I pay?", "By card.")])
    >>> faq.find("how can I pay").answer, faq.find("Do you sell cats?").is_sure
    ('By card.', False)
    """

    def __init__(
        self,
        rows: Iterable[tuple[str, str]],
        embed: Callable[[list[str]], np.ndarray] | None = None,
        threshold: float = THRESHOLD,
        rejections: Counter[str] | None = None,
    ):
        self.rows = [(question, answer) for question, answer in rows]
        if not self.rows:
            raise ValueError("rows are expected to hold a question and its answer. Received: none")
        self.embed, self.threshold = embed, threshold
        self.rejections = Counter() if rejections is None else rejections
        numbers = {answer: number for number, (_, answer) in enumerate(self.rows)}
        self.answers = np.array([numbers[answer] for _, answer in self.rows])  # alike where the answers are
        questions = [question for question, _ in self.rows]
        self.index = WordIndex(questions, passed_over=())  # "Where are you?" is made of nothing but small words
        self.vectors = None if embed is None else Vectors(embed(questions))

    @classmethod
    def open(cls, path: str | Path, embed=None, threshold: float = THRESHOLD) -> "Faq":
        """Reads a CSV file (RFC 4180) whose first line names the columns question and answer; others are passed over.

        A row without a question or an answer is left out and counted in `rejections`.

        Raises:
            UserError: there is no such file, it lacks a column, or no row is left.
        """
        path, rejections, rows = Path(path), Counter(), []
        remedy = "Name a CSV file with the columns question and answer"
        try:
            if path.stat().st_size > MAX_BYTES:
                raise UserError(f"expected at most {MAX_BYTES >> 20} MB in {path}. Received: more. {remedy}")
            with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
                for row in read_rows(file, path, remedy):
                    if row is None:
                        rejections["bad CSV"] += 1
                    elif all(row):
                        rows.append(row)
                    else:
                        rejections[f"no {COLUMNS[row.index('')]}"] += 1
        except OSError as error:
            raise UserError(
                f"expected questions and answers in {path}. Received: {error.strerror}. {remedy}"
            ) from error
        if not rows:
            received = ", ".join(f"{count} × {reason}" for reason, count in rejections.items()) or "no row"
            raise UserError(f"expected questions and answers in {path}. Received: {received}. {remedy}")
        return cls(rows, embed, threshold, rejections)

    def find(self, question: str) -> Match | None:
        """The answer to a question, or None where no question of the file has anything in common with it."""
        return self._judge(self.measure(question))

    def measure(self, question: str) -> np.ndarray:
        """How like the question of each row is, float64 [rows]."""
        likeness = np.zeros(len(self.rows))
        for number, cosine in self.index.compare(question, len(self.rows)):
            likeness[number] = cosine
        if self.vectors is not None:
            vector = self.vectors.move(self.embed([question]))[0]
            likeness = (likeness + np.maximum(self.vectors.all @ vector, 0)) / 2
        return likeness

    def _judge(self, likeness: np.ndarray) -> Match | None:
        best = int(np.argmax(likeness))
        question, answer = self.rows[best]
        if not likeness[best]:
            return None
        others = likeness[self.answers != self.answers[best]]
        is_clear = likeness[best] - others.max(initial=0) >= MARGIN
        confidence = float(likeness[best])
        return Match(answer, question, confidence, confidence >= self.threshold and is_clear)

    def choose_threshold(
        self, examples: Sequence[tuple[str, str | None]] | None = None, precision: float = PRECISION
    ) -> float:
        """Sets and returns the lowest threshold at which enough of what is answered is right.

        Args:
            examples: (a question, its answer, or None where a person should take it). None asks the questions of the
                file itself, each twice: as if its row were not there, and as if no row had its answer, where any
                answer is wrong.
            precision: the share that has to be right.

        Where no threshold reaches that, it is THRESHOLD.
        """
        if examples is None:
            asked = []
            for number in range(0, len(self.rows), -(-len(self.rows) // MOST_ASKED)):
                question, answer = self.rows[number]
                likeness = self.measure(question)
                asked.append((np.where(np.arange(len(self.rows)) == number, 0, likeness), answer))
                asked.append((np.where(self.answers == self.answers[number], 0, likeness), None))
        else:
            asked = [(self.measure(question), answer) for question, answer in examples]
        self.threshold = 0.0
        tried = []  # (confidence, whether it would be right) of what is answered at all
        for likeness, answer in asked:
            match = self._judge(likeness)
            if match is not None and match.is_sure:
                tried.append((match.confidence, match.answer == answer))
        tried.sort(reverse=True)
        self.threshold, right = THRESHOLD, 0
        for count, (confidence, is_right) in enumerate(tried, start=1):
            right += is_right
            is_last = count == len(tried) or tried[count][0] < confidence  # of those with the same confidence
            if is_last and right >= precision * count:
                self.threshold = confidence
        return self.threshold


class Vectors:
    """Vectors of texts around their mean, of length 1.

    What all questions have in common, an encoder that was trained for something else puts into every vector. Without it
    the differences are seen (Mu and Viswanath, "All-but-the-Top", 2018, of word vectors).

    Args:
        vectors: float32 [N, D].
    """

    def __init__(self, vectors: np.ndarray):
        self.mean = vectors.mean(axis=0)
        self.all = self.move(vectors)

    def move(self, vectors: np.ndarray) -> np.ndarray:
        """Other vectors, as they are seen from the mean: float32 [M, D] -> [M, D]."""
        moved = vectors - self.mean
        return moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-9)


def read_rows(file, path, remedy):
    """Yields (question, answer), stripped, of the lines of a CSV file that has both columns; None of a damaged one."""
    reader = csv.reader(file, strict=False)
    header = [name.strip().lower() for name in next(reader, [])]
    if missing := [name for name in COLUMNS if name not in header]:
        received = ", ".join(map(repr, header[:8])) or "an empty file"
        raise UserError(f"expected a column {missing[0]!r} in {path}. Received: {received}. {remedy}")
    columns = [header.index(name) for name in COLUMNS]
    while True:
        try:
            row = next(reader, None)
        except csv.Error:  # a field that is longer than the module allows, or a NUL
            yield None
            continue
        if row is None:
            return
        if any(len(cell) > LONGEST for cell in row):
            yield None
        elif any(row):
            yield tuple(row[column].strip() if column < len(row) else "" for column in columns)
