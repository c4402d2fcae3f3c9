"""The training loop: from wherever a run stands to its planned end.

`model.compile` and `model.fit` work on these models as on any Keras model. The loop here does what `fit` cannot: its
step gives the same numbers on one device and on many (step.py); it passes over a step that would do harm (guard.py); it
stops when it is asked to (interruptions.py), and goes on from there as if nothing had been; it plans by the clock.

Several workers run this loop side by side, and each step needs all of them. So whatever decides on what comes next is
the same on each: the sums of a step, the mean of the times it took, whether any of them was asked to stop.
"""

import logging
import math

import numpy as np
import tensorflow as tf

from tf_llm.training.clock import Clock
from tf_llm.training.distribution import build_mean, distribute
from tf_llm.training.guard import DivergenceError, Guard
from tf_llm.training.interruptions import Interruptions
from tf_llm.training.schedules import learning_rate_at
from tf_llm.training.step import Sums, TrainingStep

logger = logging.getLogger(__name__)
STEPS_OF_A_PLAN = 50  # then the run is planned anew: a shared machine changes its pace


class Trainer:
    """Trains a compiled model under a strategy.

    Args:
        model: as `TrainingStep` wants it compiled.
        strategy: a tf.distribute strategy.
        config: a `TrainingConfig`.

    Raises:
        UserError: as `TrainingStep` says.
    """

    def __init__(self, model, strategy, config):
        self.model, self.strategy, self.config = model, strategy, config
        self.step = TrainingStep(model, strategy, config)
        self.mean_of_workers = build_mean(strategy)

    def evaluate(self, batches):
        """`Sums` over a finite dataset of batches. Rows whose weights are all 0 count for nothing.

        Where running means of the weights are kept (`ema_decay`), it is these that are scored.
        """
        total = np.zeros(4)
        with self.step.optimizer.averaged():
            for batch in self.strategy.experimental_distribute_dataset(batches):
                total += self.step.evaluate(batch).numpy()
        return Sums(*total.tolist())

    def train(self, make_batches, checkpoints, observer, evaluate):
        """Trains until the planned steps are done, from wherever `checkpoints` left off.

        Args:
            make_batches: function of the number of the first batch -> endless dataset; batch n must depend on n alone.
                Where there are several workers, it is told which one this is, see `distribution.distribute`.
            checkpoints: a `Checkpoints` of this model and optimiser.
            observer: told of every step, see `observe.Observer`.
            evaluate: function without arguments -> Sums of the validation split.

        Returns:
            The `Clock` of the steps done here; validation and saving are not counted.

        Raises:
            UserError: a checkpoint cannot be written or read.
            DivergenceError: step after step had to be passed over.
            KeyboardInterrupt, SystemExit: a signal asked for an end (interruptions.py); the steps done are saved.
        """
        config = self.config
        with self.strategy.scope():
            resumed = checkpoints.restore()
        first, total = int(checkpoints.step), config.steps or int(checkpoints.total_steps)
        if resumed:
            logger.info("resuming at step %d of %s", first, total or "a number still to be planned")
        batches = iter(distribute(self.strategy, make_batches, first))
        clock, saved, evaluated, interrupted = Clock(), 0.0, 0.0, False
        guard, step = Guard(config.spike_factor, config.unsound_steps, checkpoints.latest_losses), first
        # The first call is not timed: it traces.
        next_plan = math.inf if total else first + max(clock.steps_until_planned, config.steps_per_call + 1)
        observer.start(step, total)
        with Interruptions() as interruptions:
            while (not total or step < total) and not interrupted:
                if step >= next_plan or (not total and clock.total > config.seconds):
                    total, next_plan = step + clock.plan(config.seconds), step + STEPS_OF_A_PLAN
                    observer.start(step, total)
                end = min(step + config.steps_per_call, total or math.inf)  # of this call
                rates = [learning_rate_at(config, number, total) for number in range(step, end)]
                clock.start()
                results = self._take_steps(batches, rates, guard.limit, clock)
                clock.add(self.mean_of_workers(clock.elapsed()), steps=len(rates))
                for learning_rate, sums in zip(rates, results, strict=True):
                    self._judge(guard, step, sums, checkpoints)
                    step += 1
                    checkpoints.step.assign(step)
                    observer.step(step, sums, learning_rate, clock, step == end)
                checkpoints.total_steps.assign(total)
                checkpoints.latest_losses = list(guard.latest)
                if step < total and not config.steps and clock.total > 1.25 * config.seconds:
                    logger.warning("the machine became slower than planned: stopping at step %d of %d", step, total)
                    break
                validation_loss = None
                if clock.total - evaluated > config.evaluate_seconds and step < total:
                    validation = evaluate()
                    observer.validation(step, validation)
                    evaluated, validation_loss = clock.total, validation.loss
                due = validation_loss is not None or clock.total - saved > config.checkpoint_seconds
                if due and step < total:
                    checkpoints.save(validation_loss, wait=False)
                    saved = clock.total
                interrupted = self.mean_of_workers(interruptions.received is not None) > 0
            if step > first:
                checkpoints.save()
            checkpoints.wait()
            interrupted = interrupted or self.mean_of_workers(interruptions.received is not None) > 0
        if guard.skipped:
            logger.warning("%d of %d steps were passed over", guard.skipped, step - first)
        if interrupted:
            logger.warning("interrupted: saved step %d; the same command goes on from there", step)
            interruptions.end()
        return clock

    def _take_steps(self, batches, rates, limit, clock):
        """Takes a step for each learning rate, from the next batches: their `Sums`."""
        limit = tf.constant(limit, tf.float32)
        if self.config.steps_per_call > 1:
            return [Sums(*sums) for sums in self.step.train_several(batches, rates, limit).numpy().tolist()]
        batch = next(batches)
        clock.receive()
        self.model.optimizer.learning_rate.assign(rates[0])
        return [Sums(*self.step.train(batch, limit).numpy().tolist())]

    def _judge(self, guard, step, sums, checkpoints):
        """Lets the guard look at a step, and says where a run that diverged left off."""
        try:
            guard.judge(step, sums.loss, applied=sums.applied > 0.5, overflowed=self.step.overflowed(sums))
        except DivergenceError as error:
            checkpoints.wait()
            raise DivergenceError(f"{error}; the last good checkpoint: {checkpoints.newest or 'none'}") from None
