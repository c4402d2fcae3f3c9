"""The learning rate as a function of the step. A further schedule is a line in SCHEDULES."""

import math


def fraction_done(step, total_steps):
    """How much of a run is behind it, in [0, 1]; 0 as long as it is not planned."""
    return min(step / total_steps, 1.0) if total_steps else 0.0


# (step from 0, total_steps, warmup_steps) -> fraction of the peak rate, to be multiplied by the warm-up's.
SCHEDULES = {
    "constant": lambda step, total_steps, warmup_steps: 1.0,
    "cosine": lambda step, total_steps, warmup_steps: 0.5 + 0.5 * math.cos(math.pi * fraction_done(step, total_steps)),
    "linear": lambda step, total_steps, warmup_steps: 1.0 - fraction_done(step, total_steps),
    # Vaswani et al. 2017, section 5.3, and T5: it needs no plan, and no end. Steps count from 1 here; Keras hands its
    # schedules, that of the TensorFlow Models among them, a count from 0, so that there the first step moves nothing.
    "inverse_square_root": lambda step, total_steps, warmup_steps: math.sqrt(
        max(warmup_steps, 1) / max(step + 1, warmup_steps)
    ),
    # Constant, then linear to 0 in the last fifth (Hu et al. 2024): one may decide late when to end.
    "warmup_stable_decay": lambda step, total_steps, warmup_steps: min(
        1.0, 5.0 * (1.0 - fraction_done(step, total_steps))
    ),
}


def learning_rate_at(config, step, total_steps):
    """The rate of step number `step` (from 0) of `total_steps`; 0 in all stands for a run that is not planned yet.

    The rate climbs in a straight line for `warmup_steps`, and is at the schedule's mercy from the start.

    >>> from tf_llm.training.optimizers import TrainingConfig
    >>> config = TrainingConfig(learning_rate=1.0, schedule="linear", warmup_steps=4)
    >>> [learning_rate_at(config, step, total_steps=8) for step in (0, 1, 4, 6)]
    [0.25, 0.4375, 0.5, 0.25]
    >>> config = TrainingConfig(learning_rate=1.0, schedule="inverse_square_root", warmup_steps=4)
    >>> [learning_rate_at(config, step, total_steps=0) for step in (0, 1, 3, 15, 63)]
    [0.25, 0.5, 1.0, 0.5, 0.25]
    """
    warmup = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    return config.learning_rate * warmup * SCHEDULES[config.schedule](step, total_steps, config.warmup_steps)
