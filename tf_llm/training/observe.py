"""What a person sees of a run: lines of progress, `metrics.jsonl`, TensorBoard.

    step 00120/01000 (12.0%) | loss 5.294 | perplexity 199 | accuracy 21.6% | bpb 2.964 | lr 1.00e-04 | dt 142 ms | …

A line is about the steps since the line before: loss (nats per target token), perplexity (its exponential), accuracy,
bits per byte of the original text (bpb), the learning rate (lr), the time of a step (dt), tokens per second (read and
said together), the share of what the devices can do that was used (mfu) and the time that is left (eta).

`metrics.jsonl` and TensorBoard have these, but for the time that is left, and besides:

    gradient_norm     of all weights together, before it was cut; the mean
    skipped_steps     how many steps were passed over (guard.py)
    update_ratio      how far the first step moved the weights, in their own size (movement.py); or the first call,
                      where a call takes several steps
    data_wait_share   of the time of a step: how long it waited for its batch; unknown of several steps in a call

A figure that is infinite or not a number is null in `metrics.jsonl`, as JSON knows neither. TensorBoard has what the
model writes at each validation, too, and if asked for, a profile of some steps.
"""

import json
import logging
import math
import sys
import time
from pathlib import Path

import tensorflow as tf
from tqdm import tqdm

from tf_llm.contracts import UserError
from tf_llm.files import write_atomically
from tf_llm.training.board import Board
from tf_llm.training.planner import say_time

logger = logging.getLogger(__name__)
UNPROFILED = 10  # steps of a process before those that are profiled: they trace, allocate, and find their pace


class Observer:
    """Follows one run.

    Args:
        folder: where `metrics.jsonl` and the TensorBoard files go; both are added to when a run resumes. What a killed
            run had noted of steps behind its last checkpoint, which are done again, is void in both.
        bits_per_byte: function of nats per token -> bits per byte of the original text.
        log_seconds: seconds between two lines.
        trains_on_text: whether the training loss is about whole texts too, so that it can be told in bits per byte.
        ideal_seconds: what a step would take if the devices did nothing but its matrix products, at their peak; without
            it, no mfu is told.
        movement: a `Movement` of the weights that are trained; without it, no update_ratio is told.
        sample_fn: function without arguments -> Markdown, what the model writes now.
        profile_steps: how many steps to profile for TensorBoard, the first ones of this process left out.
        is_chief: whether this process speaks for the run. Where it does not, nothing is printed and nothing written.
    """

    def __init__(
        self,
        folder,
        bits_per_byte,
        log_seconds=10.0,
        trains_on_text=True,
        *,
        ideal_seconds=None,
        movement=None,
        sample_fn=None,
        profile_steps=0,
        is_chief=True,
    ):
        self.folder, self.bits_per_byte, self.log_seconds = Path(folder), bits_per_byte, log_seconds
        self.trains_on_text, self.ideal_seconds, self.movement = trains_on_text, ideal_seconds, movement
        self.sample_fn, self.profile_steps, self.is_chief = sample_fn, profile_steps, is_chief
        self._metrics, self._validated = self.folder / "metrics.jsonl", set()
        self._board = self._bar = self._update_ratio = None
        self.total, self._window, self._seen, self._is_profiling = 0, [], 0, False
        self._logged = time.monotonic()

    def say(self, text):
        """Prints something, above the progress bar where there is one."""
        if self.is_chief:
            tqdm.write(text, file=sys.stderr) if self._bar is not None else print(text, file=sys.stderr, flush=True)

    def start(self, step, total):
        """The run begins with `step` steps done, or it is now known how many it has (0: not yet)."""
        self.total = total
        if not self.is_chief:
            return
        if self._board is None:
            self._open(step)
        if self._bar is not None:
            self._bar.total = total or None

    def step(self, step, sums, learning_rate, clock, ends_call=True):
        """A step is done: the number of them, its `Sums`, its rate, and the `Clock` that timed it.

        Of several steps in one call of the graph this is told behind the call; weights and times are those of its end.
        """
        if not self.is_chief:
            return
        self._window.append(sums)
        if not ends_call:
            return
        if self.movement and self._update_ratio is None:
            self._update_ratio = self.movement.measure()
        if self.profile_steps:
            self._profile()
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
        if time.monotonic() - self._logged < self.log_seconds and step != self.total:
            return
        record = self._sum_up(learning_rate, clock)
        self._note("train", step, record)
        self._print_progress(step, record)
        self._window, self._logged = [], time.monotonic()
        if self.movement:
            self._update_ratio = None
            self.movement.remember()

    def validation(self, step, sums):
        """The validation split was scored."""
        if not self.is_chief:
            return
        record = self._quality(sums.loss, sums.accuracy)
        self.say(f"{self._place(step)} | validation | {say_quality(record)}")
        if step in self._validated:  # by a run that ended between its last validation and its report
            return
        self._note("validation", step, record)
        if self.sample_fn:
            self._draw(lambda: self._board.show(step, "samples", self.sample_fn()))

    def close(self):
        """Ends the progress bar, the profile and the TensorBoard file."""
        if self._is_profiling:
            tf.profiler.experimental.stop()
        if self._bar is not None:
            self._bar.close()
        if self._board is not None:
            self._board.close()

    # === What is known of some steps ===

    def _sum_up(self, learning_rate, clock):
        """The record of the steps since the line before."""
        learned = [sums for sums in self._window if sums.applied]  # the others' loss is that of no text
        tokens = max(sum(sums.tokens for sums in learned), 1.0)
        loss, accuracy = (sum(getattr(sums, part) for sums in learned) / tokens for part in ("nats", "correct"))
        moved = sum(sums.tokens + sums.source_tokens for sums in self._window)
        steps, waits = (part[-len(self._window) :] for part in (clock.latest, clock.waits))
        seconds = sum(steps) / len(steps)
        return {
            **self._quality(loss, accuracy, is_text=self.trains_on_text),
            "learning_rate": learning_rate,
            "gradient_norm": sum(sums.gradient_norm for sums in learned) / max(len(learned), 1),
            **({"update_ratio": self._update_ratio} if self.movement else {}),
            "skipped_steps": len(self._window) - len(learned),
            "step_seconds": seconds,
            "data_wait_share": sum(waits) / sum(steps),
            "tokens_per_second": moved / len(self._window) / seconds,
            **({"mfu": self.ideal_seconds / seconds} if self.ideal_seconds else {}),
        }

    def _quality(self, loss, accuracy, is_text=True):
        quality = {"loss": loss, "perplexity": math.exp(min(loss, 100.0)), "accuracy": accuracy}
        return quality | ({"bits_per_byte": self.bits_per_byte(loss)} if is_text else {})

    # === Where it goes ===

    def _open(self, step):
        """Begins what is written at `step`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._drop_records_after(step)
        self._draw(lambda: self._begin_board(step))
        if sys.stderr.isatty():
            self._bar = tqdm(total=self.total or None, initial=step, unit="step", dynamic_ncols=True)
        if self.movement:
            self.movement.remember()

    def _begin_board(self, step):
        self._board = Board(self.folder / "tensorboard")
        self._board.begin(step)

    def _drop_records_after(self, step):
        """Takes out of `metrics.jsonl`, all at once, what comes after `step`, and a line that was cut short."""
        lines = self._metrics.read_bytes().splitlines(keepends=True) if self._metrics.exists() else []
        places = [_place_of(line) for line in lines]
        kept = [line for line, (_, noted) in zip(lines, places, strict=True) if noted <= step]
        self._validated = {noted for split, noted in places if split == "validation" and noted <= step}
        if len(kept) < len(lines):
            write_atomically(self._metrics, b"".join(kept))

    def _note(self, split, step, record):
        """Adds a record to `metrics.jsonl` and TensorBoard."""
        finite = {name: value if math.isfinite(value) else None for name, value in record.items()}
        try:
            with self._metrics.open("a", encoding="utf-8") as metrics:
                metrics.write(json.dumps({"split": split, "step": step, **finite}) + "\n")
        except OSError as error:
            raise explain_full_disk(self._metrics, error.strerror) from error
        self._draw(lambda: self._board.draw(step, {f"{split}/{name}": value for name, value in record.items()}))

    def _draw(self, draw):
        try:
            draw()
        except (OSError, tf.errors.OpError) as error:
            raise explain_full_disk(self.folder / "tensorboard", str(error).splitlines()[0]) from error

    def _place(self, step):
        return f"step {step:05d}/{self.total:05d} ({step / self.total:.1%})" if self.total else f"step {step:05d}/?"

    def _print_progress(self, step, record):
        left = max(self.total - step, 0) * record["step_seconds"]
        self.say(
            f"{self._place(step)} | {say_quality(record)} | lr {record['learning_rate']:.2e} | "
            f"dt {say_time(record['step_seconds'])} | {record['tokens_per_second']:,.0f} tokens/s"
            + (f" | mfu {record['mfu']:.1%}" if "mfu" in record else "")
            + f" | eta {say_clock(left) if self.total else '?'}"
        )

    def _profile(self):
        """Begins or ends the profile behind the step that is done."""
        self._seen += 1
        if self._seen == UNPROFILED:
            tf.profiler.experimental.start(str(self._board.folder))
            self._is_profiling = True
        elif self._seen == UNPROFILED + self.profile_steps:
            tf.profiler.experimental.stop()
            self._is_profiling = False
            logger.info("profiled %d steps, for TensorBoard: %s", self.profile_steps, self._board.folder)


def say_quality(record):
    """The part of a line that says how well texts are predicted."""
    bits = f" | bpb {record['bits_per_byte']:.3f}" if "bits_per_byte" in record else ""
    return (
        f"loss {record['loss']:.3f} | perplexity {record['perplexity']:,.0f} | accuracy {record['accuracy']:.1%}{bits}"
    )


def say_clock(seconds):
    """A time that is left, as a clock counts it.

    >>> say_clock(83), say_clock(7500), say_clock(90_000)
    ('1:23', '2:05:00', '25:00:00')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def explain_full_disk(path, received):
    """An error that says what could not be written, and what to do."""
    return UserError(
        f"expected to write to {path}. Received: {received}. Free some space; the run goes on from its last checkpoint"
    )


def _place_of(line):
    """(split, step) that a line of `metrics.jsonl` is about; a step of infinity where it is no whole record."""
    try:
        record = json.loads(line) if line.endswith(b"\n") else {}
        return record["split"], record["step"]
    except (ValueError, KeyError, TypeError):
        return None, math.inf
