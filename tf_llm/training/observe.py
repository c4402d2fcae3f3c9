"""What a person sees of a run: lines of progress, `metrics.jsonl`, TensorBoard.

A line has loss (nats per target token), perplexity (its exponential), accuracy, bits per byte of the original text,
tokens per second (read and said together) and the time that is left. `metrics.jsonl` has the same, but for the time
that is left, and the learning rate, the mean norm of the gradients before they were cut, and how many steps were passed
over; a figure that is infinite or not a number is null there, as JSON knows neither.
"""

import json
import math
import sys
import time
from pathlib import Path

import tensorflow as tf
from tqdm import tqdm

from tf_llm.contracts import UserError
from tf_llm.files import write_atomically

# `tf.summary.scalar` writes just this, but asks for the whole of TensorBoard, which TensorFlow left out in 2.21.
SCALAR = tf.compat.v1.SummaryMetadata(plugin_data={"plugin_name": "scalars"})


class Silence:
    """An `Observer` that says and writes nothing: that of all workers but the chief."""

    def start(self, step, total):
        """See `Observer.start`."""

    def step(self, step, sums, learning_rate, clock):
        """See `Observer.step`."""

    def validation(self, step, sums):
        """See `Observer.validation`."""

    def close(self):
        """See `Observer.close`."""


class Observer:
    """Follows one run.

    Args:
        folder: where `metrics.jsonl` and the TensorBoard files go; both are added to when a run resumes. What a killed
            run had noted of steps behind its last checkpoint, which are done again, is taken out of `metrics.jsonl`;
            TensorBoard, which has no such means, draws these steps twice.
        bits_per_byte: function of nats per token -> bits per byte of the original text.
        log_seconds: seconds between two lines.
        trains_on_text: whether the training loss is about whole texts too, so that it can be told in bits per byte.
    """

    def __init__(self, folder, bits_per_byte, log_seconds=10.0, trains_on_text=True):
        self.folder, self.bits_per_byte, self.log_seconds = Path(folder), bits_per_byte, log_seconds
        self.trains_on_text = trains_on_text
        self.folder.mkdir(parents=True, exist_ok=True)
        self._metrics = self.folder / "metrics.jsonl"
        self._board = tf.summary.create_file_writer(str(self.folder / "tensorboard"))
        self._terminal = sys.stderr.isatty()
        self._bar = None
        self.total, self._window = 0, []
        self._logged = time.monotonic()

    def start(self, step, total):
        """The run begins with `step` steps done, or it is now known how many it has (0: not yet)."""
        self.total = total
        self._drop_records_after(step)
        if self._terminal and self._bar is None:
            self._bar = tqdm(total=total or None, initial=step, unit="step", dynamic_ncols=True)
        if self._bar is not None:
            self._bar.total = total or None

    def step(self, step, sums, learning_rate, clock):
        """A step is done: the number of them, its `Sums`, its rate, and the `Clock` that timed it."""
        self._window.append(sums)
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
        if time.monotonic() - self._logged < self.log_seconds and step != self.total:
            return
        learned = [sums for sums in self._window if sums.applied]  # the others' loss is that of no text
        tokens = max(sum(sums.tokens for sums in learned), 1.0)
        loss, accuracy = (sum(getattr(sums, part) for sums in learned) / tokens for part in ("nats", "correct"))
        moved = sum(sums.tokens + sums.source_tokens for sums in self._window)
        steps = clock.latest[-len(self._window) :]
        seconds = sum(steps) / len(steps)
        record = {
            **self._quality(loss, accuracy, is_text=self.trains_on_text),
            "learning_rate": learning_rate,
            "gradient_norm": sum(sums.gradient_norm for sums in learned) / max(len(learned), 1),
            "skipped_steps": len(self._window) - len(learned),
            "tokens_per_second": moved / len(self._window) / seconds,
        }
        left = max(self.total - step, 0) * seconds
        self._write("train", step, record, f" | {record['tokens_per_second']:,.0f} tokens/s | {left:.0f} s left")
        self._window, self._logged = [], time.monotonic()

    def validation(self, step, sums):
        """The validation split was scored."""
        self._write("validation", step, self._quality(sums.loss, sums.accuracy))

    def close(self):
        """Ends the progress bar and the TensorBoard file."""
        if self._bar is not None:
            self._bar.close()
        self._board.close()

    def _drop_records_after(self, step):
        """Takes out of `metrics.jsonl`, all at once, what comes after `step`, and a line that was cut short."""
        lines = self._metrics.read_bytes().splitlines(keepends=True) if self._metrics.exists() else []
        kept = [line for line in lines if _step_of(line) <= step]
        if len(kept) < len(lines):
            write_atomically(self._metrics, b"".join(kept))

    def _quality(self, loss, accuracy, is_text=True):
        quality = {"loss": loss, "perplexity": math.exp(min(loss, 100.0)), "accuracy": accuracy}
        return quality | ({"bits_per_byte": self.bits_per_byte(loss)} if is_text else {})

    def _write(self, split, step, record, tail=""):
        finite = {name: value if math.isfinite(value) else None for name, value in record.items()}
        try:
            with self._metrics.open("a", encoding="utf-8") as metrics:
                metrics.write(json.dumps({"split": split, "step": step, **finite}) + "\n")
        except OSError as error:
            raise UserError(
                f"expected to write to {self._metrics}. Received: {error.strerror}. Free some space; the run goes on "
                "from its last checkpoint"
            ) from error
        with self._board.as_default(step=step):
            for name, value in record.items():
                tf.summary.write(f"{split}/{name}", tf.constant(value, tf.float32), metadata=SCALAR)
        total = f"{self.total:05d}" if self.total else "?"
        line = (
            f"step {step:05d}/{total} | {split:10s} | loss {record['loss']:.3f} | "
            f"perplexity {record['perplexity']:,.0f} | accuracy {record['accuracy']:.1%}"
            + (f" | {record['bits_per_byte']:.3f} bits/byte" if "bits_per_byte" in record else "")
            + tail
        )
        tqdm.write(line, file=sys.stderr) if self._bar is not None else print(line, file=sys.stderr, flush=True)


def _step_of(line):
    """The step that a line of `metrics.jsonl` is about; infinity where it is no whole record."""
    try:
        return json.loads(line)["step"] if line.endswith(b"\n") else math.inf
    except (ValueError, KeyError, TypeError):
        return math.inf
