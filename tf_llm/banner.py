"""What a run is about to do, on one screen: settings and where they come from, devices, costs, time, paths.

It is printed when a run starts, and alone with `--dry_run`. Nothing is built for it: costs follow from the settings
(training/costs.py); only the speed of the devices is measured.
"""

import math
import os

import tensorflow as tf

from tf_llm.config import RunConfig, flatten
from tf_llm.recipes import RECIPES
from tf_llm.training.checkpoints import list_versions
from tf_llm.training.costs import COMPUTE_BYTES, count_flops, count_memory, count_parameters
from tf_llm.training.devices import list_devices, measure_peak
from tf_llm.training.distribution import choose_precision
from tf_llm.training.planner import USUAL_MFU, abbreviate, itemise, say_time

WRITTEN = "config.json, checkpoints/, metrics.jsonl, tensorboard/, report.md"


def describe_run(run, strategy, workdir, data, origins=None, precision=None, peak=None):
    """The banner: lines of text.

    Args:
        run: a `RunConfig`.
        strategy: a tf.distribute strategy.
        workdir, data: the folders of the run and of its shards.
        origins: {"stage.field": what set it}, as `flags.find_origins` returns it.
        precision: a Keras dtype policy, by default the one that the settings ask for.
        peak: FLOP/s of all devices together, 0 where it is not known; by default it is measured.

    >>> import dataclasses
    >>> from tf_llm.training.distribution import strategy
    >>> run = RECIPES["best"]()
    >>> run = dataclasses.replace(run, training=dataclasses.replace(run.training, steps=300, precision="float32"))
    >>> text = describe_run(run, strategy("cpu"), "runs/a", "runs/a/data", {"training.steps": "--training.steps"})
    >>> print("\\n".join(text.splitlines()[1:3]))
                 training.steps      300      --training.steps, in place of 0
                 training.precision  float32  set in Python, in place of auto
    """
    precision = precision or choose_precision(run.training.precision)
    peak = measure_peak(strategy, precision) if peak is None else peak
    lines = [
        *describe_settings(run, origins or {}),
        ("versions", describe_versions()),
        ("devices", describe_devices(strategy, peak, precision)),
        *describe_costs(run, strategy.num_replicas_in_sync, peak, precision),
        ("pages", f"as token ids in {data}"),
        ("folder", f"{workdir}: {WRITTEN}"),
    ]
    return "\n".join(f"{what:11}  {text}" for what, text in lines)


def describe_settings(run, origins):
    """[(what, text)]: the settings that are not the recipe's, and what set them."""
    recipe = flatten(RECIPES.get(run.recipe, RunConfig)())
    settings = flatten(run)
    changed = [name for name in settings if settings[name] != recipe[name]]
    number = f"{len(settings) - 1} settings"  # the name of the recipe is none
    lines = [("recipe", f"{run.recipe}, {number}, but for" if changed else f"{run.recipe}, all of its {number}")]
    names, values = (
        max((len(str(text)) for text in texts), default=0) for texts in (changed, map(settings.get, changed))
    )
    for name in changed:
        origin = origins.get(name, "set in Python")
        lines.append(("", f"{name:{names}}  {settings[name]!s:{values}}  {origin}, in place of {recipe[name]}"))
    return lines


def describe_versions():
    """What the figures of a run depend on."""
    versions = list_versions()
    python = f"Python {versions.pop('python')}"
    return ", ".join([python, *(f"{name} {version or 'not installed'}" for name, version in versions.items())])


def describe_devices(strategy, peak, precision):
    """Which devices train, and how fast they multiply."""
    replicas, first = strategy.num_replicas_in_sync, tf.DeviceSpec.from_string(list_devices(strategy)[0])
    kind = {"CPU": f"CPU of {os.cpu_count()} cores"}.get(first.device_type, first.device_type)
    if first.device_type == "GPU":
        gpu = tf.config.list_physical_devices("GPU")[first.device_index]
        kind = tf.config.experimental.get_device_details(gpu).get("device_name", kind)
    speed = f"matrix products at {abbreviate(peak, 'FLOP/s')}, measured; mfu is the share a step reaches"
    return f"{replicas} × {kind} ({type(strategy).__name__}), {precision}" + (f"; {speed}" if peak else "")


def describe_costs(run, replicas, peak, precision):
    """[(what, text)]: parameters, operations, memory and time, by the formulas of costs.py."""
    model, training = run.model, run.training
    parameters, flops = count_parameters(model), count_flops(model)
    row, tokens = sum(flops.values()), model.source_length + model.target_length
    step = f"{training.batch_size:,} rows of {model.source_length} + {model.target_length} tokens"
    lines = [
        ("parameters", f"{abbreviate(sum(parameters.values()))}: {itemise(parameters)}"),
        (
            "a step",
            f"{step}, {abbreviate(training.batch_size * row, 'FLOP')}, {abbreviate(row / tokens, 'FLOP')} a token",
        ),
    ]
    if precision in COMPUTE_BYTES:
        rows = math.ceil(training.batch_size / (replicas * training.accumulation))
        how = {"accumulates": training.accumulation > 1, "averages": training.ema_decay > 0}
        memory = count_memory(model, training.optimizer, precision, rows, **how)
        device, disk = sum(memory.values()), memory["weights"] + memory["optimizer"]
        lines.append(("memory", f"about {abbreviate(device, 'B')} on each device: {itemise(memory)}"))
        lines.append(("checkpoint", f"{abbreviate(disk, 'B')}: weights and the optimiser's state"))
    return [*lines, ("time", describe_time(training, training.batch_size * row, peak))]


def describe_time(training, step_flops, peak):
    """How long the steps take, or how many there will be."""
    seconds = step_flops / (USUAL_MFU * peak) if peak else 0.0
    each = f"{say_time(seconds)} a step if mfu is {USUAL_MFU:.0%}, as is usual" if peak else "of an unknown speed"
    if training.steps:
        total = f", {say_time(training.steps * seconds)} in all" if peak else ""
        return f"{training.steps:,} steps, {each}{total}"
    number = f", {int(training.seconds / seconds):,} steps" if peak else ""
    return f"{say_time(training.seconds)} of training, {each}{number}; planned when the first steps were timed"
