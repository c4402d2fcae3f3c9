"""Which devices train with Keras on JAX, and which part of what lies on each: what strategies are on TensorFlow.

The devices form a mesh of two axes. The rows of a batch are divided along "batch"; along "model" the matrices of a
block are, so that each device computes some of the heads and some of the feed-forward width, and the devices of a row
of the mesh add up what they have twice a block (Shoeybi et al. 2019, "Megatron-LM"). XLA finds the sums itself: a
layout changes where numbers lie, and rounding, but not what a step is.

Glossary: B batch, D width, F feed-forward width, V vocabulary.
"""

import contextlib
import re

import keras
import numpy as np

from tf_llm.contracts import UserError
from tf_llm.training.jax_extra import jax

# What the path of a variable ends in, but for what an optimiser adds -> the axis that is divided; the first that fits.
# What a product adds up over is divided in its second matrix, so that nothing moves between the two.
DIVIDED = {
    r"attention.output.kernel|narrow.kernel": 0,  # [heads, D], [F, D]
    r"(query|projection|widen|gate|output|output_embedding).kernel": 1,  # [D, heads], [D, F], [D, V]
    r"table.embeddings": 0,  # [V, D]
    r"widen.bias|output_embedding.bias": 0,  # [F], [V]
}


class Layout:
    """A mesh of devices, and what lies where on it.

    Args:
        devices: devices of JAX, or of a topology that is not here; None takes all that are.
        model: over how many of them each matrix is divided. 1 is data parallelism: every device holds the model.

    Raises:
        UserError: `model` does not divide the number of devices.
    """

    def __init__(self, devices=None, model=1):
        devices = np.array(jax.devices() if devices is None else devices).ravel()
        if model < 1 or len(devices) % model:
            raise UserError(f"model expected a divisor of {len(devices)}, the number of devices. Received: {model}")
        self.mesh = jax.sharding.Mesh(devices.reshape(-1, model), ("batch", "model"))
        self.of_rows = self._name("batch")
        self.of_numbers = self._name()

    def _name(self, *axes):
        return jax.sharding.NamedSharding(self.mesh, jax.sharding.PartitionSpec(*axes))

    def of_variable(self, variable):
        """Where a variable of a model or of its optimiser lies: a jax.sharding.Sharding.

        One that cannot be divided evenly, as a vocabulary of 8,003 words cannot, is whole on every device.
        """
        for pattern, axis in DIVIDED.items():
            if re.search(rf"(^|[/_])({pattern})(_|$)", variable.path) and axis < len(variable.shape):
                if variable.shape[axis] % self.mesh.shape["model"]:
                    break
                return self._name(*[None] * axis, "model")
        return self.of_numbers

    @property
    def row_devices(self):
        """Over how many devices the rows of a batch are divided."""
        return self.of_rows.mesh.shape[self.of_rows.spec[0]]

    # === What a `Trainer` asks of a strategy ===

    def scope(self):
        """Nothing: what is made inside lies where it would anyway."""
        return contextlib.nullcontext()

    def experimental_distribute_dataset(self, batches):
        """Yields the batches of a tf.data.Dataset as arrays whose rows are divided among the devices."""
        for batch in batches.as_numpy_iterator():
            yield jax.device_put(batch, self.of_rows)


class KerasLayout(Layout):
    """What `keras.distribution.set_distribution` said before the model was built: variables lie where Keras put them.

    Args:
        distribution: a `keras.distribution.DataParallel` or `ModelParallel`.
    """

    def __init__(self, distribution):
        self.of_rows = distribution.get_data_layout((1,)).backend_layout
        self.mesh = self.of_rows.mesh
        self.of_numbers = self._name()

    def of_variable(self, variable):
        return variable.value.sharding


def find_layout():
    """Keras's distribution where there is one, else the first device."""
    distribution = keras.distribution.distribution()
    return KerasLayout(distribution) if distribution else Layout(jax.devices()[:1])
