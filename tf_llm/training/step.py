"""One optimiser step, the same on one device and on many.

The batch is divided among the devices, and on each of them into parts if gradients are accumulated. Every part adds its
gradients, each divided by the number of target tokens of the whole batch; the devices add theirs; then the sum is cut
to its norm, looked at, and applied once. So a device with few tokens counts for as many as it has, and the same batch
gives the same step however it is divided: rounding aside, and batch statistics and dropout masks, which belong to a
part.

What a step reports is plain cross-entropy, whatever it trains on: neither L2 nor smoothed targets move it.

Under mixed_float16 the loss is multiplied with a scale before it is differentiated, and the gradients are divided by it
behind: small ones would be 0 in float16, which ends at 6e-8 (Micikevicius et al. 2018). Where the scale makes them
overflow, at 65,504, the step is passed over and the scale halved; behind so many steps without, it is doubled. Keras's
LossScaleOptimizer, which `model.compile` puts around the optimiser, holds the scale, and its own `fit` uses it; but it
looks at the gradients of the first device alone, before they are added up.

Glossary: B batch (of one device, or of a part of it), T target length, V vocabulary.
"""

import dataclasses
import math

import keras
import tensorflow as tf

from tf_llm.contracts import PAD_ID, SOURCE_IDS, UserError, on_replica
from tf_llm.training.losses import cross_entropy
from tf_llm.training.optimizers import unwrap
from tf_llm.training.updates import GuardedUpdates


@dataclasses.dataclass(frozen=True)
class Sums:
    """What one or several steps add up to."""

    nats: float  # plain cross-entropy, summed over target tokens
    correct: float  # target tokens that had the highest logit
    tokens: float  # target tokens
    source_tokens: float = 0.0  # tokens that the encoder read
    gradient_norm: float = 0.0  # of all weights together, before it was cut; of one step
    applied: float = 1.0  # whether the weights moved, 0 or 1; of one step

    @property
    def loss(self):
        """Nats per target token."""
        return self.nats / max(self.tokens, 1.0)

    @property
    def accuracy(self):
        """Share of target tokens that had the highest logit."""
        return self.correct / max(self.tokens, 1.0)


class TrainingStep:
    """The graphs that a run consists of: a step that learns, several of them, and one that scores.

    Args:
        model: a Keras model, compiled inside `strategy.scope()` with `build_optimizer(config)` and
            `build_loss(config)`, or another loss of (targets [B, T], logits [B, T, V]) that reduces nothing in `call`.
        strategy: a tf.distribute strategy.
        config: a `TrainingConfig`.

    Attributes:
        train: tf.function of (batch, limit): learns from a distributed batch unless its loss is above `limit`, float32
            [], or its gradients are not finite; then neither weights nor optimiser change, nor batch norm's averages.
            Returns the fields of `Sums` as a tensor [6].
        train_several: function of (iterator of such batches, rates, limit): one step for each learning rate, all with
            the same limit, in one call of a graph. A TPU waits less for it than for as many calls. Returns a tensor
            [steps, 6].
        evaluate: tf.function of a distributed batch -> the first four of them, without dropout and without learning.

    Raises:
        UserError: the model was not compiled, or with something else than the config says; the batch cannot be divided.
    """

    def __init__(self, model, strategy, config):
        check_compiled(model, config)
        self.parts, replicas = config.accumulation, strategy.num_replicas_in_sync
        if self.parts > 1 and config.batch_size % (self.parts * replicas):
            raise UserError(
                f"training.batch_size expected a multiple of {self.parts * replicas}, for {self.parts} parts on each "
                f"of {replicas} devices. Received: {config.batch_size}. Change it, or training.accumulation"
            )
        self.model, self.strategy, self.config = model, strategy, config
        self.optimizer, self.sums = unwrap(model.optimizer), []
        self.scaler = model.optimizer if model.optimizer is not self.optimizer else None
        if self.scaler is not None and config.steps_per_call > 1:
            raise UserError(
                "training.steps_per_call expected 1 under mixed_float16, whose loss scale is looked at after each. "
                f"Received: {config.steps_per_call}. Choose 1, or mixed_bfloat16"
            )
        self.batch_averages = [v.value for v in model.non_trainable_variables if v.dtype == "float32"]
        with strategy.scope():
            if not model.optimizer.built:  # a LossScaleOptimizer would make a second scale
                model.optimizer.build(model.trainable_variables)
            if self.parts > 1:  # each device adds up its own
                shapes = [[4], *(variable.shape for variable in model.trainable_variables)]
                self.sums = [make_local_zeros(shape) for shape in shapes]
        self.train = tf.function(self._train_in_parts if self.parts > 1 else self._train)
        self.evaluate = tf.function(self._evaluate)
        self._loop = tf.function(self._train_several)

    def train_several(self, batches, rates, limit):
        """See the class. Fewer rates than the config's `steps_per_call` ask for no second graph."""
        padded = tf.constant([*rates, *[0.0] * (self.config.steps_per_call - len(rates))])
        return self._loop(batches, padded, tf.constant(len(rates)), limit)[: len(rates)]

    # === What the strategy sees: functions of a distributed batch ===

    def _train(self, batch, limit):
        before = [tf.convert_to_tensor(average) for average in self.batch_averages]
        with self.optimizer.guard():
            result = self._add_up(self.strategy.run(self.replica_step, args=(*batch, limit)))
        return self._finish(result, before)

    def _train_in_parts(self, batch, limit):
        before = [tf.convert_to_tensor(average) for average in self.batch_averages]
        for part in tf.range(self.parts):
            self.strategy.run(self.replica_accumulate, args=(*batch, part))
        with self.optimizer.guard():
            result = self._add_up(self.strategy.run(self.replica_update, args=(limit,)))
        return self._finish(result, before)

    def _finish(self, result, before):
        """Puts back what the forward passes of a step have moved that is passed over: the averages of batch norm."""
        for average, old in zip(self.batch_averages, before, strict=True):
            average.assign(tf.where(result[5] > 0.5, average, old))
        return self._rescale(result)

    def _train_several(self, batches, rates, count, limit):
        results = tf.TensorArray(tf.float32, size=tf.size(rates), element_shape=[6])
        for number in tf.range(count):
            self.optimizer.learning_rate.assign(rates[number])
            results = results.write(number, self.train(next(batches), limit))
        return results.stack()  # [steps_per_call, 6]

    def _evaluate(self, batch):
        return self._add_up(self.strategy.run(self.replica_evaluate, args=batch))

    def _add_up(self, per_replica):
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, per_replica, axis=None)

    def _rescale(self, result):
        """Moves the loss scale by what came of a step, and returns that. A loss that is not finite is not its fault."""
        if self.scaler is None:
            return result
        scale, steps = self.scaler.dynamic_scale, self.scaler.step_counter  # steps since the scale was moved
        finite, finite_loss = tf.math.is_finite(result[4]), tf.math.is_finite(result[0])
        halve = tf.logical_and(finite_loss, tf.logical_not(finite))
        counted = steps.value + tf.cast(finite, steps.dtype)
        double = counted >= self.scaler.dynamic_growth_steps
        scale.assign(scale * tf.where(halve, 0.5, tf.where(double, 2.0, 1.0)))
        steps.assign(tf.where(tf.logical_or(halve, double), tf.zeros_like(counted), counted))
        return result

    def overflowed(self, sums):
        """Whether the step that `sums` come from was passed over because its loss scale, halved now, was too high.

        That mends itself: it may take the 15 steps in which a scale of 32,768 comes down to 1, and only then is it the
        model that is to blame.
        """
        if self.scaler is None or math.isfinite(sums.gradient_norm) or not math.isfinite(sums.nats):
            return False
        return bool(self.scaler.dynamic_scale.numpy() >= 1.0)

    # === What one device does ===

    def replica_step(self, features, targets, weights, limit):
        """A whole step of this device's rows."""
        sums, *gradients = self.differentiate(features, targets, weights, self.count_tokens(weights))
        return self.apply(sums, gradients, limit)

    def replica_accumulate(self, features, targets, weights, part):
        """Adds part number `part` of this device's rows to what the parts before it came to."""
        tokens = self.count_tokens(weights)  # of all parts

        def cut(column):
            return tf.reshape(column, [self.parts, -1, *column.shape[1:]])[part]  # [B, …]

        added = self.differentiate(*tf.nest.map_structure(cut, (features, targets, weights)), tokens)
        for total, addend in zip(self.sums, added, strict=True):
            total.assign_add(addend)

    def replica_update(self, limit):
        """Applies what the parts came to, and begins again at 0."""
        sums, *gradients = [tf.identity(total) for total in self.sums]
        result = self.apply(sums, gradients, limit)
        with tf.control_dependencies([result]):
            for total in self.sums:
                total.assign(tf.zeros_like(total))
        return result

    def replica_evaluate(self, features, targets, weights):
        """The sums [4] of this device's rows."""
        logits = tf.cast(self.model(features, training=False), tf.float32)  # [B, T, V]
        return add_up_tokens(features, targets, weights, logits, cross_entropy(targets, logits))

    # === The parts of a step ===

    def count_tokens(self, weights):
        """Target tokens on all devices together: float32 []."""
        replica = tf.distribute.get_replica_context()
        return replica.all_reduce(tf.distribute.ReduceOp.SUM, tf.reduce_sum(weights))

    def differentiate(self, features, targets, weights, tokens):
        """Sums [4] and gradients of rows whose share of the loss is their share of `tokens`."""
        replica = tf.distribute.get_replica_context()
        variables = [variable.value for variable in self.model.trainable_variables]
        with tf.GradientTape() as tape:
            tape.watch(variables)  # which are tensors where a `keras.StatelessScope` lends the model its weights
            with on_replica(replica.replica_id_in_sync_group):
                logits = tf.cast(self.model(features, training=True), tf.float32)  # [B, T, V]
            losses = call_loss(self.model.loss, targets, logits)  # [B, T]
            objective = tf.reduce_sum(losses * weights) / tf.maximum(tokens, 1.0)
            if self.model.losses:  # L2: once for all devices and parts together, not once for each
                objective += tf.add_n(self.model.losses) / (self.strategy.num_replicas_in_sync * self.parts)
            if self.scaler is not None:
                objective = self.scaler.scale_loss(objective)
        gradients = tape.gradient(objective, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]  # repeated embedding rows are added up
        if self.scaler is not None:  # the scale is a power of two, so nothing is rounded
            gradients = [gradient / self.scaler.dynamic_scale.value for gradient in gradients]
        # No second softmax over the vocabulary: the plain part of a loss is made of the very nodes that this is made
        # of, and TensorFlow keeps one of each.
        nats = cross_entropy(targets, logits)
        return [add_up_tokens(features, targets, weights, logits, nats), *gradients]

    def apply(self, sums, gradients, limit):
        """Adds up the gradients of all devices, looks at them, and moves the weights. Returns what `train` does."""
        replica = tf.distribute.get_replica_context()
        total, *gradients = replica.all_reduce(tf.distribute.ReduceOp.SUM, [sums, *gradients])
        norm = tf.linalg.global_norm(gradients)
        if self.config.clip_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, self.config.clip_norm, use_norm=norm)
        loss = total[0] / tf.maximum(total[2], 1.0)
        sound = tf.math.is_finite(norm) & tf.math.is_finite(loss) & (loss <= limit)
        self.optimizer.sound = sound
        self.optimizer.apply(gradients, self.model.trainable_variables)
        of_all = tf.stack([norm, tf.cast(sound, tf.float32)]) / self.strategy.num_replicas_in_sync
        return tf.concat([sums, of_all], axis=0)


def call_loss(loss, targets, logits):
    """What a compiled loss makes of each target: float32 [B, T]."""
    # Keras's own, as the article has it, is plain cross-entropy by an op that takes twice as long on a CPU.
    plain = type(loss) is keras.losses.SparseCategoricalCrossentropy and loss.from_logits and loss.ignore_class is None
    return cross_entropy(targets, logits) if plain else loss.call(targets, logits)


def add_up_tokens(features, targets, weights, logits, nats):
    """The first fields of `Sums`, as a tensor [4]; `nats` [B, T]."""
    # Not by keras.ops, whose argmax passes over all logits four times more, for the sake of a zero's sign.
    hit = tf.cast(tf.argmax(logits, axis=-1, output_type=targets.dtype) == targets, tf.float32)
    source_tokens = tf.reduce_sum(tf.cast(features[SOURCE_IDS] != PAD_ID, tf.float32))
    return tf.stack(
        [tf.reduce_sum(nats * weights), tf.reduce_sum(hit * weights), tf.reduce_sum(weights), source_tokens]
    )


def make_local_zeros(shape):
    """A variable of which each device has its own, and which no checkpoint needs."""
    return tf.Variable(
        tf.zeros(shape),
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.SUM,
    )


def check_compiled(model, config):
    """Refuses a model that was compiled with other means than the config's."""
    # Keras's own optimisers would add up over the devices what is added up already.
    optimizer, loss = unwrap(getattr(model, "optimizer", None)), getattr(model, "loss", None)
    if not isinstance(optimizer, GuardedUpdates) or not isinstance(loss, keras.losses.Loss):
        raise UserError(
            "expected a model compiled with an optimiser of tf_llm and a loss object. Received: "
            f"optimizer={type(optimizer).__name__}, loss={loss!r}. Call model.compile(optimizer="
            "build_optimizer(…), loss=build_loss(…))"
        )
    compiled = {name: getattr(loss, name, 0.0) for name in ("label_smoothing", "z_loss")}
    compiled["ema_decay"] = optimizer.ema_momentum if optimizer.use_ema else 0.0
    for name, received in compiled.items():
        wanted = getattr(config, name)
        if received != wanted:
            raise UserError(
                f"expected a model compiled with {name}={wanted}. Received: {received}. "
                "Call model.compile(optimizer=build_optimizer(config), loss=build_loss(config))"
            )
