"""Figures and texts for TensorBoard, which draws them: `tensorboard --logdir runs`.

What it reads are files of TFRecords, each of them an `Event`. They are written as such here: the ops of `tf.summary`
that know figures and texts ask for the whole of TensorBoard, which TensorFlow left out in 2.21, and none of them can
say that a run was taken up again.
"""

import os
import time
from pathlib import Path

import tensorflow as tf

Event, SessionLog, Summary = tf.compat.v1.Event, tf.compat.v1.SessionLog, tf.compat.v1.Summary
VERSION = "brain.Event:2"  # of the format; the first record of a file says it


class Board:
    """A file of events in a folder, beside those of the processes that went before.

    Args:
        folder: made if it is not there.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     board = Board(folder)
    ...     board.begin(step=40)
    ...     board.draw(step=41, figures={"train/loss": 2.5})
    ...     board.close()
    ...     events = [Event.FromString(r.numpy()) for r in tf.data.TFRecordDataset(str(next(Path(folder).iterdir())))]
    >>> [(event.step, event.WhichOneof("what")) for event in events]
    [(0, 'file_version'), (41, 'session_log'), (41, 'summary')]
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():.6f}.{os.getpid()}"  # TensorBoard reads them in the order of names
        self._path = self.folder / name
        self._file = tf.io.TFRecordWriter(str(self._path))
        self._write(file_version=VERSION)

    def begin(self, step):
        """The run begins, or goes on, with `step` steps done: what was drawn of later ones is void, since they are done
        again. It is taken out of the files; a TensorBoard that has read them is told to forget it."""
        for path in sorted(self.folder.glob("*tfevents*")):
            if path != self._path:
                drop_events_after(step, path)
        self._write(step + 1, session_log=SessionLog(status=SessionLog.START))

    def draw(self, step, figures):
        """Adds a point to the curve of each {name: figure}; those of "a/b" and "a/c" stand side by side."""
        self._write_values(step, {name: tf.make_tensor_proto(value, tf.float32) for name, value in figures.items()})

    def show(self, step, name, text):
        """Shows a text in Markdown."""
        self._write_values(step, {name: tf.make_tensor_proto(text, tf.string)}, plugin="text")

    def close(self):
        """Ends the file."""
        self._file.close()

    def _write_values(self, step, tensors, plugin="scalars"):
        metadata = tf.compat.v1.SummaryMetadata(plugin_data={"plugin_name": plugin})
        values = [Summary.Value(tag=name, tensor=tensor, metadata=metadata) for name, tensor in tensors.items()]
        self._write(step, summary=Summary(value=values))

    def _write(self, step=0, **what):
        self._file.write(Event(wall_time=time.time(), step=step, **what).SerializeToString())
        self._file.flush()  # a run that is killed leaves what it had to say


def drop_events_after(step, path):
    """Rewrites a file of events without those of later steps, and without an event that was cut short."""
    kept, whole = [], True
    try:
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            if Event.FromString(record).step <= step:
                kept.append(record)
            else:
                whole = False
    except tf.errors.DataLossError:
        whole = False
    if whole:
        return
    partial = path.with_name("rewritten.partial")  # a name that TensorBoard does not read
    with tf.io.TFRecordWriter(str(partial)) as file:
        for record in kept:
            file.write(record)
    partial.replace(path)
