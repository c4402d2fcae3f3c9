"""The training loop: the same step on one device and on many.

`model.compile` and `model.fit` work on these models as on any Keras model. The loop here does what `fit` cannot: it
divides once, by the number of tokens on all devices together, so that devices with uneven padding agree with one
device; it adds L2 once a step; it stops, resumes and reports by the clock. What it reports is plain cross-entropy,
whatever it trains on: neither L2 nor smoothed targets move it.

Glossary: B batch (of one device, inside `replica_step`), T target length, V vocabulary.
"""

import dataclasses
import logging
import math
import time

import keras
import numpy as np
import tensorflow as tf

from tf_llm.contracts import PAD_ID, SOURCE_IDS, UserError, on_replica
from tf_llm.training.losses import cross_entropy
from tf_llm.training.optimizers import DenseGradients, learning_rate_at

logger = logging.getLogger(__name__)
WARMING_STEPS, TIMED_STEPS = 3, 10  # the first steps trace and allocate; the next are timed to plan the run
STEPS_OF_A_PLAN = 50  # then the run is planned anew: a shared machine changes its pace


@dataclasses.dataclass(frozen=True)
class Sums:
    """What one or several steps add up to."""

    nats: float  # plain cross-entropy, summed over target tokens
    correct: float  # target tokens that had the highest logit
    tokens: float  # target tokens
    source_tokens: float = 0.0  # tokens that the encoder read

    @property
    def loss(self):
        """Nats per target token."""
        return self.nats / max(self.tokens, 1.0)

    @property
    def accuracy(self):
        """Share of target tokens that had the highest logit."""
        return self.correct / max(self.tokens, 1.0)


class Trainer:
    """Trains a compiled model under a strategy.

    Args:
        model: a Keras model, compiled inside `strategy.scope()` with `build_optimizer(config)` and
            `build_loss(config)`, or another loss of (targets [B, T], logits [B, T, V]) that reduces nothing in `call`.
        strategy: a tf.distribute strategy.
        config: a `TrainingConfig`.

    Raises:
        UserError: the model was not compiled, or with something else than the config says.
    """

    def __init__(self, model, strategy, config):
        # Keras's own optimisers would add up over the devices what is added up already; under mixed_float16 Keras hides
        # the optimiser in a LossScaleOptimizer, which would divide by a scale that nobody multiplied with.
        optimizer, loss = getattr(model, "optimizer", None), getattr(model, "loss", None)
        if not isinstance(optimizer, DenseGradients) or not isinstance(loss, keras.losses.Loss):
            raise UserError(
                "expected a model compiled with an optimiser of tf_llm and a loss object. Received: "
                f"optimizer={type(optimizer).__name__}, loss={loss!r}. Call model.compile(optimizer="
                "build_optimizer(…), loss=build_loss(…)), in float32 or mixed_bfloat16"
            )
        smoothing = getattr(loss, "label_smoothing", 0.0)
        if smoothing != config.label_smoothing:
            raise UserError(
                f"expected a model compiled with a label_smoothing of {config.label_smoothing}. Received: {smoothing}. "
                "Call model.compile(…, loss=build_loss(config))"
            )
        self.model, self.strategy, self.config = model, strategy, config
        self.optimizer = optimizer
        with strategy.scope():
            self.optimizer.build(model.trainable_variables)
        self.train_step = tf.function(lambda batch: self._run(self.replica_step, batch))
        self.evaluate_step = tf.function(lambda batch: self._run(self.replica_evaluate, batch))

    def replica_step(self, features, targets, weights):
        """One optimiser step, as seen by one device: returns its sums [nats, correct, tokens, source tokens]."""
        replica = tf.distribute.get_replica_context()
        tokens = replica.all_reduce(tf.distribute.ReduceOp.SUM, tf.reduce_sum(weights))
        with tf.GradientTape() as tape:
            with on_replica(replica.replica_id_in_sync_group):
                logits = tf.cast(self.model(features, training=True), tf.float32)  # [B, T, V]
            losses = self.model.loss.call(targets, logits)  # [B, T]
            objective = tf.reduce_sum(losses * weights) / tf.maximum(tokens, 1.0)
            if self.model.losses:  # L2: once for all devices together, not once for each
                objective += tf.add_n(self.model.losses) / self.strategy.num_replicas_in_sync
        variables = self.model.trainable_variables
        gradients = tape.gradient(
            objective, [variable.value for variable in variables], unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]  # repeated embedding rows are added up
        gradients = replica.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        if self.config.clip_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, self.config.clip_norm)
        self.optimizer.gradients_are_reduced = True  # in this graph; a later `model.fit` sums for itself
        self.optimizer.apply(gradients, variables)
        self.optimizer.gradients_are_reduced = False
        # A second softmax over the vocabulary is a tenth of a step. Keras's own loss is plain already, and the plain
        # part of a `SmoothedCrossentropy` is this very node, of which TensorFlow keeps one.
        plain = isinstance(self.model.loss, keras.losses.SparseCategoricalCrossentropy)
        return self._sums(features, targets, weights, logits, losses if plain else cross_entropy(targets, logits))

    def replica_evaluate(self, features, targets, weights):
        """The sums of one batch on one device, without dropout and without learning."""
        logits = tf.cast(self.model(features, training=False), tf.float32)  # [B, T, V]
        return self._sums(features, targets, weights, logits, cross_entropy(targets, logits))

    @staticmethod
    def _sums(features, targets, weights, logits, nats):
        """The fields of `Sums`, as a tensor [4]; `nats` [B, T]."""
        hit = tf.cast(tf.argmax(logits, axis=-1, output_type=targets.dtype) == targets, tf.float32)
        source_tokens = tf.reduce_sum(tf.cast(features[SOURCE_IDS] != PAD_ID, tf.float32))
        return tf.stack(
            [tf.reduce_sum(nats * weights), tf.reduce_sum(hit * weights), tf.reduce_sum(weights), source_tokens]
        )

    def _run(self, replica_function, batch):
        per_replica = self.strategy.run(replica_function, args=batch)
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, per_replica, axis=None)

    def evaluate(self, batches):
        """`Sums` over a finite dataset of batches. Rows whose weights are all 0 count for nothing."""
        total = np.zeros(4)
        for batch in self.strategy.experimental_distribute_dataset(batches):
            total += self.evaluate_step(batch).numpy()
        return Sums(*total.tolist())

    def train(self, make_batches, checkpoints, observer, evaluate):
        """Trains until the planned steps are done, from wherever `checkpoints` left off.

        Args:
            make_batches: function of the number of the first batch -> endless dataset; batch n must depend on n alone.
            checkpoints: a `Checkpoints` of this model and optimiser.
            observer: told of every step, see `observe.Observer`.
            evaluate: function without arguments -> Sums of the validation split.

        Returns:
            The `Clock` of the steps done here; validation and saving are not counted.

        Raises:
            UserError: the loss is no longer a number, or a checkpoint cannot be written or read.
            KeyboardInterrupt: after the steps that were done have been saved.
        """
        config = self.config
        with self.strategy.scope():
            resumed = checkpoints.restore()
        first, total = int(checkpoints.step), config.steps or int(checkpoints.total_steps)
        if resumed:
            logger.info("resuming at step %d of %s", first, total or "a number still to be planned")
        batches = iter(self.strategy.experimental_distribute_dataset(make_batches(first)))
        clock, saved, evaluated = Clock(), time.monotonic(), time.monotonic()
        step, steps_elsewhere = first, int(self.optimizer.iterations.numpy()) - first
        next_plan = math.inf if total else first + WARMING_STEPS + TIMED_STEPS
        observer.start(step, total)
        try:
            while not total or step < total:
                if step >= next_plan or (not total and clock.total > config.seconds):
                    total, next_plan = step + self._plan(clock), step + STEPS_OF_A_PLAN
                    observer.start(step, total)
                clock.start()
                learning_rate = learning_rate_at(config, step, total)
                self.optimizer.learning_rate.assign(learning_rate)
                sums = Sums(*self.train_step(next(batches)).numpy().tolist())
                clock.stop()
                if not math.isfinite(sums.loss):
                    raise UserError(
                        f"expected a finite loss. Received: {sums.loss} in step {step}. Lower the learning rate or set "
                        "clip_norm; the checkpoints of earlier steps are as they were"
                    )
                step += 1
                checkpoints.step.assign(step)
                checkpoints.total_steps.assign(total)
                observer.step(step, sums, learning_rate, clock)
                if step < total and not config.steps and clock.total > 1.25 * config.seconds:
                    logger.warning("the machine became slower than planned: stopping at step %d of %d", step, total)
                    break
                if time.monotonic() - evaluated > config.evaluate_seconds and step < total:
                    observer.validation(step, evaluate())
                    evaluated = time.monotonic()
                if time.monotonic() - saved > config.checkpoint_seconds and step < total:
                    checkpoints.save()
                    saved = time.monotonic()
        except KeyboardInterrupt:
            # The optimiser's own count is right even where the interruption came between its step and ours.
            checkpoints.step.assign(self.optimizer.iterations.numpy() - steps_elsewhere)
            logger.warning("interrupted: saving step %d; the same command goes on from there", checkpoints.step)
            checkpoints.save()
            raise
        if step > first:
            checkpoints.save()
        return clock

    def _plan(self, clock):
        """How many further steps the time has room for, by the median of those that were timed; one at least."""
        seconds = float(np.median(clock.latest[-TIMED_STEPS:]))
        left = max(self.config.seconds - clock.total, 0.0)
        steps = max(int(left / seconds), 1)
        logger.debug("a step takes %.0f ms: planning %d more for %.0f s", 1e3 * seconds, steps, left)
        return steps


class Clock:
    """Seconds spent in steps: the latest ones', and of all `steps` together."""

    def __init__(self):
        self.steps, self.total, self.latest = 0, 0.0, []
        self._started = 0.0

    def start(self):
        """Begins a step."""
        self._started = time.perf_counter()

    def stop(self):
        """Ends a step. The first step of all traces the graph; it counts in `total` like any other."""
        self.latest.append(time.perf_counter() - self._started)
        self.total += self.latest[-1]
        self.steps += 1
        del self.latest[:-100]
