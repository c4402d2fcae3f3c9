"""One optimiser step with Keras on JAX: the numbers of step.py as one pure function, which XLA compiles whole.

    (state, batch, limit) -> (state, sums)

The state is what a step changes: weights, random state, the optimiser's numbers. Its memory is donated, so that a step
writes where it has read. The function says nothing of devices. Where the arrays lie that it is given decides where
which part is computed (jax_layouts.py), and a batch is one batch, however it is divided: its target tokens are counted
once, its gradients summed once and then cut, and L2 added once, without a line of code for it.

The model, the loss, the optimiser and the settings are those of TensorFlow.

Glossary: B batch, T target length, V vocabulary.
"""

import numpy as np
import tensorflow as tf

from tf_llm.contracts import PAD_ID, SOURCE_IDS, UserError
from tf_llm.training.jax_extra import jax
from tf_llm.training.jax_layouts import find_layout
from tf_llm.training.losses import cross_entropy
from tf_llm.training.step import call_loss, check_compiled

jnp = jax.numpy


class JaxStep:
    """The two functions that a run consists of: a step that learns, and one that scores.

    Args:
        model: a Keras model, compiled with `build_optimizer(config)` and `build_loss(config)`.
        config: a `TrainingConfig`.
        layout: a `Layout`; None is that of `keras.distribution`, or else the first device.

    Attributes:
        variables: those of model and optimiser, in the form of a state: {"trainable": [...], "non_trainable": [...],
            "optimizer": [...]}.
        compiled: `step` as XLA compiles it; `compiled.lower` asks for it where there are no arrays.
        state: what the steps so far have led to. While there is one, the model's own variables are not to be used:
            `write_back` fills them.

    Raises:
        UserError: the model was not compiled, or with something else than the config says; the batch cannot be divided.
    """

    def __init__(self, model, config, layout=None):
        check_compiled(model, config)
        if model.compute_dtype == "float16":
            raise UserError("training on JAX expected float32 or mixed_bfloat16. Received: mixed_float16")
        self.model, self.config, self.layout = model, config, layout or find_layout()
        self.optimizer, self.parts = model.optimizer, config.accumulation
        if self.optimizer.use_ema:
            raise UserError("training on JAX expected an optimiser without running means of the weights. Received: one")
        divisor = self.parts * self.layout.row_devices
        if config.batch_size % divisor:
            raise UserError(
                f"training.batch_size expected a multiple of {divisor}, for {self.parts} parts on each of "
                f"{self.layout.row_devices} devices. Received: {config.batch_size}. Change it, or training.accumulation"
            )
        self.optimizer.build(model.trainable_variables)
        self.variables = {
            "trainable": model.trainable_variables,
            "non_trainable": model.non_trainable_variables,
            "optimizer": self.optimizer.variables,
        }
        shardings = self.map_state(self.layout.of_variable)
        numbers = self.layout.of_numbers
        self.compiled = jax.jit(self.step, donate_argnums=0, out_shardings=(shardings, numbers))
        self._evaluate = jax.jit(self.score, out_shardings=numbers)
        self.state = None

    # === What a `Trainer` calls ===

    def train(self, batch, limit):
        """Learns from a batch unless its loss is above `limit`, or its gradients are not finite; then neither weights
        nor optimiser change. Returns the fields of `Sums` as a tensor [6] of TensorFlow's."""
        return tf.constant(np.asarray(self.begin(batch, self.optimizer.learning_rate, limit)))

    def train_several(self, batches, rates, limit):
        """A step for each learning rate, from the next batches: a tensor [steps, 6]. The host prepares a step while the
        device is still at the one before, since it looks at none before the last."""
        sums = [self.begin(next(batches), rate, limit) for rate in rates]
        return tf.constant(np.stack(sums))

    def begin(self, batch, rate, limit):
        """Has the device do a step, and does not wait for it: the fields of `Sums` as JAX's array [6]."""
        if self.state is None:
            self.read()
        own = self.optimizer.learning_rate
        place = next(i for i, variable in enumerate(self.optimizer.variables) if variable is own)
        self.state["optimizer"][place] = jax.device_put(np.float32(rate), self.layout.of_numbers)
        state, self.state = self.state, None  # which this call uses up, even if it fails
        self.state, sums = self.compiled(state, batch, np.float32(limit))
        return sums

    def evaluate(self, batch):
        """The first four of them, without dropout and without learning."""
        if self.state is None:
            self.read()
        return tf.constant(np.asarray(self._evaluate(self.state, batch)))

    def overflowed(self, sums):
        """Whether float16 was too small for a step: it is not used here."""
        return False

    def read(self):
        """Begins from what the variables of model and optimiser hold, whose memory it takes over."""
        self.state = self.map_state(lambda variable: jax.device_put(variable.value, self.layout.of_variable(variable)))

    def write_back(self):
        """Gives the state to the variables of model and optimiser; the next step begins from there."""
        if self.state is not None:
            for name, variables in self.variables.items():
                for variable, value in zip(variables, self.state[name], strict=True):
                    variable.assign(value)
        self.state = None

    def map_state(self, function):
        """What a function makes of each variable, in the form of a state."""
        return {name: [function(variable) for variable in part] for name, part in self.variables.items()}

    # === The pure functions ===

    def step(self, state, batch, limit):
        """A whole step: (state, (features, targets, weights), float32 []) -> (state, float32 [6])."""
        non_trainable, sums, gradients = self.differentiate_parts(state, *batch)
        norm = jnp.sqrt(sum(jnp.sum(jnp.square(gradient)) for gradient in gradients))
        if clip := self.config.clip_norm:
            gradients = [gradient * (clip / jnp.maximum(norm, clip)) for gradient in gradients]
        loss = sums[0] / jnp.maximum(sums[2], 1.0)
        sound = jnp.isfinite(norm) & jnp.isfinite(loss) & (loss <= limit)
        old = state["trainable"], state["optimizer"]
        new = self.optimizer.stateless_apply(state["optimizer"], gradients, state["trainable"])
        trainable, optimizer = jax.tree.map(lambda after, before: jnp.where(sound, after, before), tuple(new), old)
        non_trainable = [  # batch norm's averages; but what was drawn is drawn
            jnp.where(sound, after, before) if jnp.issubdtype(after.dtype, jnp.floating) else after
            for after, before in zip(non_trainable, state["non_trainable"], strict=True)
        ]
        sums = jnp.concatenate([sums, jnp.stack([norm, sound.astype("float32")])])
        return {"trainable": trainable, "non_trainable": non_trainable, "optimizer": optimizer}, sums

    def score(self, state, batch):
        """The sums [4] of a batch."""
        features, targets, weights = batch
        logits, _ = self.model.stateless_call(state["trainable"], state["non_trainable"], features, training=False)
        return add_up_tokens(features, targets, weights, logits, cross_entropy(targets, logits))

    def differentiate_parts(self, state, features, targets, weights):
        """Random state, sums [4] and gradients of a whole batch, one part of its rows behind the other."""
        trainable, tokens = state["trainable"], jnp.maximum(jnp.sum(weights), 1.0)
        if self.parts == 1:
            return self.differentiate(trainable, state["non_trainable"], features, targets, weights, tokens)

        def cut(column):  # part p has the rows p, p + parts, …: some of each device's
            return jnp.swapaxes(column.reshape(-1, self.parts, *column.shape[1:]), 0, 1)  # [parts, B / parts, …]

        def add(carried, part):
            non_trainable, *total = carried
            non_trainable, *more = self.differentiate(trainable, non_trainable, *part, tokens)
            return (non_trainable, *jax.tree.map(jnp.add, total, more)), None

        begin = (state["non_trainable"], jnp.zeros(4), [jnp.zeros_like(weight) for weight in trainable])
        return jax.lax.scan(add, begin, jax.tree.map(cut, (features, targets, weights)))[0]

    def differentiate(self, trainable, non_trainable, features, targets, weights, tokens):
        """The same of rows whose share of the loss is their share of `tokens`."""

        def objective(trainable):
            logits, changed, penalties = self.model.stateless_call(
                trainable, non_trainable, features, training=True, return_losses=True
            )
            losses = call_loss(self.model.loss, targets, logits)  # [B, T]
            sums = add_up_tokens(features, targets, weights, logits, cross_entropy(targets, logits))
            return jnp.sum(losses * weights) / tokens + sum(penalties) / self.parts, (changed, sums)

        gradients, (changed, sums) = jax.grad(objective, has_aux=True)(trainable)
        return changed, sums, gradients


def add_up_tokens(features, targets, weights, logits, nats):
    """The first fields of `Sums`, as an array [4]; `nats` [B, T]."""
    hit = jnp.argmax(logits, axis=-1) == targets
    source_tokens = jnp.sum(features[SOURCE_IDS] != PAD_ID)
    return jnp.stack([jnp.sum(nats * weights), jnp.sum(hit * weights), jnp.sum(weights), source_tokens * 1.0])
