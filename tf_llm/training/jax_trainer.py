"""The training loop with Keras on JAX: that of trainer.py around another step, and checkpoints that both can open.

    KERAS_BACKEND=jax python …

    trainer = JaxTrainer(model, run.training, Layout(model=2))  # pairs of devices share a model
    checkpoints = JaxCheckpoints("runs/first/checkpoints", trainer.step, about=dataclasses.asdict(run))
    trainer.train(make_batches, checkpoints, observer, evaluate)

Batches come from the same tf.data pipeline, whose place is the host's CPU. One process sees all devices: a pod of
several hosts is not provided for.
"""

import types

import numpy as np
import tensorflow as tf

from tf_llm.training.checkpoints import Checkpoints
from tf_llm.training.jax_step import JaxStep
from tf_llm.training.trainer import Trainer


class JaxTrainer(Trainer):
    """Trains a compiled model on the devices of a layout.

    Args:
        model: as `JaxStep` wants it compiled.
        config: a `TrainingConfig`.
        layout: a `Layout`; None is that of `keras.distribution`, or else the first device.

    Raises:
        UserError: as `JaxStep` says.
    """

    mean_of_workers = float  # there is one

    def __init__(self, model, config, layout=None):
        self.step = JaxStep(model, config, layout)
        self.model, self.strategy, self.config = model, self.step.layout, config

    def train(self, make_batches, checkpoints, observer, evaluate):
        """See `Trainer.train`; `checkpoints` are `JaxCheckpoints`. Until it returns, the model itself is not to be
        used, but for `evaluate`."""
        try:
            return super().train(make_batches, checkpoints, observer, evaluate)
        finally:
            self.step.write_back()


class JaxCheckpoints(Checkpoints):
    """Checkpoints of a run on JAX, in the format of those on TensorFlow: either goes on from what the other wrote.

    Args:
        folder: where they lie.
        step: a `JaxStep`.
        settings: those of `Checkpoints`.
    """

    def __init__(self, folder, step, **settings):
        self._jax_step = step
        self._variables = {"model": step.model.variables, "optimizer": step.optimizer.variables}
        copies = {name: [make_copy(variable) for variable in part] for name, part in self._variables.items()}
        model, optimizer = (
            types.SimpleNamespace(variables=part, trainable_variables=(), built=True, build=lambda variables: None)
            for part in copies.values()
        )
        super().__init__(folder, model, optimizer, **settings)

    def restore(self, which="newest"):
        """See `Checkpoints.restore`."""
        found = super().restore(which)
        if found:
            self._jax_step.write_back()
            for name, part in self._variables.items():
                for variable, copy in zip(part, self._parts[name], strict=True):
                    variable.assign(copy.numpy().astype(variable.dtype))
        return found

    def _copy_values(self):
        step = self._jax_step
        values = {}
        if step.state is not None:
            for name, part in step.variables.items():
                values |= {id(variable): value for variable, value in zip(part, step.state[name], strict=True)}
        return {
            name: [to_host(values.get(id(variable), variable.value)) for variable in self._variables.get(name, ())]
            for name in self._parts
        }


def to_host(value):
    """The value of a variable as TensorFlow has it: Keras counts and draws in 64 bits there, and in 32 on JAX."""
    value = np.array(value)
    return value.astype("int64") if value.dtype.kind in "iu" else value


def make_copy(variable):
    """What `Checkpoints` knows of a variable: its value as a variable of TensorFlow, in the host's memory."""
    with tf.device("CPU:0"):
        return types.SimpleNamespace(value=tf.Variable(to_host(variable.value)))
