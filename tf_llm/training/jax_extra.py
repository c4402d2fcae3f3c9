"""JAX, or an error that says how to come by it. Nothing else in this package imports it."""

from tf_llm.contracts import UserError

try:
    import jax
except ImportError as error:
    raise UserError(
        f"training on JAX expected the package jax. Received: {error}. pip install 'tf_llm[jax]' (on a TPU, jax[tpu])"
    ) from error

import keras

if keras.backend.backend() != "jax":
    raise UserError(
        f"training on JAX expected Keras on JAX. Received: Keras on {keras.backend.backend()}. Set KERAS_BACKEND=jax "
        "in the environment before Keras is imported"
    )

__all__ = ["jax"]
