"""How long a training run takes, on which devices, and with how much data: answers before anything is started.

`plan_training` puts what a step costs (costs.py) beside what a kind of device can do. How well the device is used is an
assumption, `mfu`: the share of the peak that matrix products of the model reach (Chowdhery et al. 2022, appendix B).
A third is usual: 21 % for GPT-3, 30 % for Megatron-Turing NLG, 46 % for PaLM (the same, table 3), 31 % for nanoT5.
The network between devices is not modelled; what it costs is for `mfu` to say.
"""

import dataclasses
import math

from tf_llm.contracts import UserError
from tf_llm.training.costs import FLOAT32, count_flops, count_memory, count_parameters
from tf_llm.training.devices import DeviceKind

USUAL_MFU = 0.3  # what a run is assumed to reach, where nothing is said of it
TOKENS_PER_PARAMETER = 20  # of training data, where compute is spent best (Hoffmann et al. 2022, table 3)
ROOM = 0.9  # of a device's memory; the rest is the runtime's, and lost between buffers
# One crawl of Common Crawl: 2.1 billion pages. Of one of them, C4's rules keep 750 GB of English (Raffel et al. 2020).
CRAWL_HTML, CRAWL_TEXT = 400e12, 0.75e12  # bytes
DAY = 86_400.0  # seconds
MONTH = 30  # days
PREFIXES = ("", "k", "M", "G", "T", "P", "E", "Z")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run would take. Made by `plan_training`; figures of a step are of all devices together."""

    device: DeviceKind  # of which kind all devices are
    devices: int  # how many
    precision: str  # a Keras dtype policy
    mfu: float  # share of the peak that is assumed
    batch_size: int  # rows of a step
    rows: int  # of them on one device at a time
    lengths: tuple[int, int]  # source and target positions of a row
    parameters: dict[str, int]  # by part
    flops: dict[str, int]  # by part, of one row, forward and backward
    memory: dict[str, int]  # bytes on one device, by what they are for
    corpus_tokens: float  # read once
    tokens_per_row: int  # of the corpus, that a row is the first to read
    bytes_per_token: float  # of text

    @property
    def num_parameters(self):
        """N."""
        return sum(self.parameters.values())

    @property
    def step_flops(self):
        """Of the matrix products of one step."""
        return self.batch_size * sum(self.flops.values())

    @property
    def flops_by_rule(self):
        """6·N·D: what a step would take if every weight met every position, as in a decoder alone."""
        return 6 * self.num_parameters * self.batch_size * sum(self.lengths)

    @property
    def step_seconds(self):
        """By the operations at the assumed share of the peak; no less than it takes to move the numbers of an update.

        The update reads weights, gradients and state, and writes weights and state.
        """
        seconds = self.step_flops / (self.devices * self.device.peak(self.precision) * self.mfu)
        moved = 2 * (self.memory["weights"] + self.memory["optimizer"]) + FLOAT32 * self.num_parameters
        return max(seconds, moved / self.device.bandwidth) if self.device.bandwidth else seconds

    @property
    def tokens_per_second(self):
        """Positions of source and target, padding included."""
        return self.batch_size * sum(self.lengths) / self.step_seconds

    @property
    def steps(self):
        """Of one pass over the corpus."""
        return math.ceil(self.corpus_tokens / (self.batch_size * self.tokens_per_row))

    @property
    def pass_seconds(self):
        """Of one pass over the corpus."""
        return self.steps * self.step_seconds

    @property
    def most_rows(self):
        """Rows that have room on a device at a time; 0 where the weights and what belongs to them take all of it."""
        row = (self.memory["activations"] + self.memory["logits"]) / self.rows
        fixed = sum(self.memory.values()) - row * self.rows
        return max(int((ROOM * self.device.memory - fixed) / row), 0)

    @property
    def checkpoint_bytes(self):
        """Weights and the optimiser's state."""
        return self.memory["weights"] + self.memory["optimizer"]

    @property
    def wanted_tokens(self):
        """Data that a model of this size is worth (Hoffmann et al. 2022)."""
        return TOKENS_PER_PARAMETER * self.num_parameters

    @property
    def supported_parameters(self):
        """Size of the model that this corpus is worth (Hoffmann et al. 2022)."""
        return self.corpus_tokens / TOKENS_PER_PARAMETER

    def count_devices(self, flops):
        """How many devices do so many operations in a month, at the assumed share of their peak."""
        return math.ceil(flops / (MONTH * DAY * self.mfu * self.device.peak(self.precision)))

    def tabulate(self):
        """[(what, figure, what is to be said of it)], for people."""
        devices, (source, target) = f"{self.devices:,} × {self.device.name}", self.lengths
        if self.rows <= self.most_rows:
            room = ("it fits", f"{self.most_rows:,} rows at a time would")
        elif self.most_rows:
            room = ("DOES NOT FIT", f"{self.most_rows:,} rows at a time would: take a smaller batch, or accumulate")
        else:
            room = ("DOES NOT FIT", "not even one row would: take a smaller model, or devices with more memory")
        text, wanted = (tokens * self.bytes_per_token for tokens in (self.corpus_tokens, self.wanted_tokens))
        passes = self.wanted_tokens / self.corpus_tokens
        month = f"in {MONTH} days with {self.count_devices(self.steps * self.step_flops):,} of these"
        compute = self.count_devices(6 * self.supported_parameters * self.corpus_tokens)
        return [
            ("parameters", abbreviate(self.num_parameters), itemise(self.parameters)),
            (
                "batch",
                f"{self.batch_size:,} rows",
                f"{source} + {target} tokens each; {self.rows:,} on a device at a time",
            ),
            ("a step", abbreviate(self.step_flops, "FLOP"), itemise(self.flops)),
            ("by 6·N·D", abbreviate(self.flops_by_rule, "FLOP"), "as if every weight met every token"),
            ("memory of a device", abbreviate(sum(self.memory.values()), "B"), itemise(self.memory)),
            (f"of {abbreviate(self.device.memory, 'B')}", *room),
            ("a checkpoint", abbreviate(self.checkpoint_bytes, "B"), "weights and the optimiser's state"),
            (
                "peak of a device",
                abbreviate(self.device.peak(self.precision), "FLOP/s"),
                f"{self.precision}; {self.device.source}",
            ),
            ("a step takes", say_time(self.step_seconds), f"{devices} at {self.mfu:.0%} of their peak"),
            ("speed", f"{abbreviate(self.tokens_per_second)} tokens/s", "source and target"),
            (
                "the corpus",
                abbreviate(text, "B"),
                f"of text, {abbreviate(self.corpus_tokens)} tokens: {say_crawls(text)}",
            ),
            ("one pass over it", say_time(self.pass_seconds), f"{self.steps:,} steps; {month}"),
            (
                "this model wants",
                abbreviate(wanted, "B"),
                f"of text, {abbreviate(self.wanted_tokens)} tokens: {say_crawls(wanted)}",
            ),
            ("reading that", say_time(self.pass_seconds * passes), f"{passes:.3g} passes over the corpus"),
            (
                "this corpus wants",
                abbreviate(self.supported_parameters),
                f"parameters; by 6·N·D, they are trained in {MONTH} days with {compute:,} of these",
            ),
        ]

    def describe(self):
        """The table as text, a line for each figure."""
        rows = self.tabulate()
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        return "\n".join(f"{what:{widths[0]}}  {figure:>{widths[1]}}  {note}" for what, figure, note in rows)


def plan_training(
    model,
    training,
    device,
    devices=1,
    *,
    corpus_bytes=None,
    corpus_tokens=None,
    bytes_per_token=4.0,
    tokens_per_row=None,
    mfu=USUAL_MFU,
):
    """Plans a run in which every device holds the whole model and computes its share of each batch.

    Args:
        model: a `ModelConfig`.
        training: a `TrainingConfig`; its batch is that of all devices together.
        device: a `DeviceKind`, see `find_device`.
        devices: how many of them.
        corpus_bytes, corpus_tokens: one of the two: the size of the corpus, as UTF-8 text or in tokens.
        bytes_per_token: of text. 32,000 pieces of English have 4 or a little more; 8,000 have 3.4 on documentation.
        tokens_per_row: of the corpus, that a row is the first to read; by default its targets, as with `PrefixLM`.
        mfu: share of the peak that is assumed.

    Returns:
        A `Plan`.

    Raises:
        UserError: a number that is out of bounds, or a batch that cannot be shared out.

    T5 1.1 base, 16 rows on each of 8 TPU chips, and C4:

    >>> from tf_llm.model.sizes import build_size
    >>> from tf_llm.training.devices import find_device
    >>> from tf_llm.training.optimizers import TrainingConfig
    >>> training = TrainingConfig(optimizer="adafactor", batch_size=128)
    >>> plan = plan_training(build_size("t5_v1_1_base"), training, find_device("tpu-v5e"), 8, corpus_bytes=0.75e12)
    >>> plan.num_parameters, plan.precision, abbreviate(plan.step_flops, "FLOP"), abbreviate(plan.flops_by_rule, "FLOP")
    (247577856, 'mixed_bfloat16', '56 TFLOP', '122 TFLOP')
    >>> plan.rows, plan.rows <= plan.most_rows, say_time(plan.step_seconds), say_time(plan.pass_seconds)
    (16, True, '118 ms', '15.7 days')
    """
    if (corpus_bytes is None) == (corpus_tokens is None):
        raise UserError(
            f"expected corpus_bytes or corpus_tokens, one of the two. Received: {corpus_bytes!r} and {corpus_tokens!r}"
        )
    tokens_per_row = model.target_length if tokens_per_row is None else tokens_per_row
    corpus = corpus_bytes if corpus_tokens is None else corpus_tokens
    for name, value in (("devices", devices), ("tokens_per_row", tokens_per_row)):
        if not isinstance(value, int) or value < 1:
            raise UserError(f"{name} expected a whole number of at least 1. Received: {value!r}")
    for name, value in (("bytes_per_token", bytes_per_token), ("the corpus", corpus)):
        if not 0 < value < math.inf:
            raise UserError(f"{name} expected a number above 0. Received: {value!r}")
    if not 0 < mfu <= 1:
        raise UserError(f"mfu expected a share in (0, 1]. Received: {mfu!r}; {USUAL_MFU} is usual")
    parts = devices * training.accumulation
    rows, left = divmod(training.batch_size, parts)
    if left:
        raise UserError(
            f"training.batch_size expected a multiple of {parts:,}, the devices times the parts of a batch. Received: "
            f"{training.batch_size:,}. Choose {(rows + 1) * parts:,}"
        )
    precision = device.choose_precision(training.precision)
    # On a TPU, XLA compiles a step whole; elsewhere TensorFlow runs it operation by operation.
    how = {"accumulates": training.accumulation > 1, "compiled": device.name.startswith("tpu")}
    how["averages"] = training.ema_decay > 0
    return Plan(
        device=device,
        devices=devices,
        precision=precision,
        mfu=mfu,
        batch_size=training.batch_size,
        rows=rows,
        lengths=(model.source_length, model.target_length),
        parameters=count_parameters(model),
        flops=count_flops(model),
        memory=count_memory(model, training.optimizer, precision, rows, **how),
        corpus_tokens=corpus_bytes / bytes_per_token if corpus_tokens is None else corpus_tokens,
        tokens_per_row=tokens_per_row,
        bytes_per_token=bytes_per_token,
    )


def abbreviate(number, unit=""):
    """Three digits and a prefix.

    >>> abbreviate(80e9, "B"), abbreviate(1_234_567), abbreviate(999_999), abbreviate(5)
    ('80 GB', '1.23 M', '1 M', '5')
    """
    power = 0
    while float(f"{abs(number):.3g}") >= 1000 and power < len(PREFIXES) - 1:
        number, power = number / 1000, power + 1
    return f"{number:.3g} {PREFIXES[power]}{unit}".strip()


def say_time(seconds):
    """A time in the largest unit of which it is one, with three digits.

    >>> say_time(0.02), say_time(90), say_time(200_000)
    ('20 ms', '1.5 min', '2.31 days')
    """
    for unit, size in (("days", DAY), ("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if seconds >= size:
            amount = seconds / size
            return f"{amount:,.0f} {unit}" if amount >= 1000 else f"{amount:.3g} {unit}"
    return f"{1e3 * seconds:.3g} ms"


def say_crawls(text_bytes):
    """How much of Common Crawl so much clean text is.

    >>> say_crawls(3e12)
    'what 4 crawls leave, 1.6 PB of HTML'
    """
    crawls = text_bytes / CRAWL_TEXT
    return f"what {crawls:.2g} crawls leave, {abbreviate(crawls * CRAWL_HTML, 'B')} of HTML"


def itemise(amounts):
    """What a whole is made of: names and shares, the largest first; what is nothing is passed over.

    >>> itemise({"encoder": 1, "decoder": 3, "position_embedding": 0})
    'decoder 75%, encoder 25%'
    """
    whole, ordered = sum(amounts.values()), sorted(amounts.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {amount / whole:.0%}" for name, amount in ordered if amount)
