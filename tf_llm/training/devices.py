"""What kinds of devices can do: figures that were published, and for the CPU at hand one that is measured.

A further kind is a line in DEVICES, with the place where its figures stand.
"""

import dataclasses
import functools
import math
import os
import time

import keras
import tensorflow as tf

from tf_llm.contracts import UserError

SMALLEST, LARGEST = 512, 8_192  # sides of the matrices whose products are timed
LONG = 0.2  # seconds that one of them may take


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeviceKind:
    """What is published, or measured, of a kind of device."""

    name: str  # a key of DEVICES, or "cpu"
    float32_flops: float  # FLOP/s of matrix products of float32, in the way that TensorFlow multiplies it by default
    bfloat16_flops: float = 0.0  # the same of bfloat16, sums in float32, nothing sparse; 0 where it is emulated
    float16_flops: float = 0.0  # the same of float16
    memory: float  # bytes
    bandwidth: float = 0.0  # bytes a second between memory and chip; 0 is unknown
    source: str  # where the figures stand

    def choose_precision(self, name):
        """A Keras dtype policy: `name` itself, or for "auto" what `distribution.choose_precision` finds there."""
        return name if name != "auto" else "mixed_bfloat16" if self.bfloat16_flops else "float32"

    def peak(self, precision):
        """FLOP/s under a Keras dtype policy; of what is emulated no more is expected than of float32.

        >>> DEVICES["t4"].peak("mixed_bfloat16") == DEVICES["t4"].float32_flops
        True
        """
        halves = {"mixed_bfloat16": self.bfloat16_flops, "mixed_float16": self.float16_flops}
        return halves.get(precision) or self.float32_flops


def _nvidia(name, float32, bfloat16, float16, gigabytes, bandwidth, source):
    return DeviceKind(
        name=name,
        float32_flops=float32 * 1e12,
        bfloat16_flops=bfloat16 * 1e12,
        float16_flops=float16 * 1e12,
        memory=gigabytes * 1e9,
        bandwidth=bandwidth * 1e9,
        source=source,
    )


def _tpu(name, bfloat16, memory, bandwidth, source):
    # XLA multiplies float32 on a TPU in one pass of bfloat16, unless it is told otherwise.
    peak = bfloat16 * 1e12
    return DeviceKind(
        name=name, float32_flops=peak, bfloat16_flops=peak, memory=memory, bandwidth=bandwidth * 1e9, source=source
    )


SUPERCOMPUTER = "Jouppi et al. 2020, A domain-specific supercomputer for training DNNs; half of a chip"
CLOUD = "cloud.google.com/tpu/docs"
# From Ampere on, TensorFlow multiplies float32 as TensorFloat-32; the figures are those without sparsity.
DEVICES = {
    kind.name: kind
    for kind in (
        _nvidia("v100-16gb", 15.7, 0, 125, 16, 900, "NVIDIA V100 datasheet, SXM2"),
        _nvidia("v100-32gb", 15.7, 0, 125, 32, 900, "NVIDIA V100 datasheet, SXM2"),
        _nvidia("t4", 8.1, 0, 65, 16, 300, "NVIDIA T4 datasheet"),
        _nvidia("a100-40gb", 156, 312, 312, 40, 1_555, "NVIDIA A100 datasheet, SXM"),
        _nvidia("a100-80gb", 156, 312, 312, 80, 2_039, "NVIDIA A100 datasheet, SXM"),
        _nvidia("h100", 494, 989, 989, 80, 3_350, "NVIDIA H100 datasheet, SXM; half of its figures with sparsity"),
        _tpu("tpu-v2-core", 22.5, 8 * 2**30, 350, SUPERCOMPUTER),
        _tpu("tpu-v3-core", 61.5, 16 * 2**30, 450, SUPERCOMPUTER),
        _tpu("tpu-v4", 275, 32 * 2**30, 1_200, f"{CLOUD}/v4"),
        _tpu("tpu-v5e", 197, 16e9, 819, f"{CLOUD}/v5e"),
        _tpu("tpu-v5p", 459, 95e9, 2_765, f"{CLOUD}/v5p"),
        _tpu("tpu-v6e", 918, 32e9, 1_638, f"{CLOUD}/v6e"),
    )
}


def find_device(name, seconds=1.0):
    """The `DeviceKind` of a name; the CPU of this machine is measured, for about so many seconds.

    Raises:
        UserError: an unknown name.
    """
    if name == "cpu":
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        single, half = (measure_matmul_peak(dtype, seconds / 2) for dtype in ("float32", "bfloat16"))
        return DeviceKind(
            name="cpu",
            float32_flops=single,
            bfloat16_flops=half if half > single else 0.0,
            memory=memory,
            source="measured here",
        )
    if name not in DEVICES:
        raise UserError(f"device expected one of {sorted([*DEVICES, 'cpu'])}. Received: {name!r}. Choose one of them")
    return DEVICES[name]


def list_devices(strategy):
    """Names of the devices of this process on which a strategy trains."""
    try:
        return list(strategy.extended.worker_devices)
    except RuntimeError:  # TensorFlow's default strategy, which leaves it to each op
        return [(tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU"))[0].name]


def measure_peak(strategy, precision):
    """FLOP/s that all devices of a strategy together reach in matrix products under a Keras dtype policy.

    One device of this process is measured, once, for less than a second. 0.0 for a TPU: TensorFlow compiles for it, and
    what is published is what it reaches.
    """
    devices = list_devices(strategy)
    if "TPU" in devices[0].upper():
        return 0.0
    one = _measure_device(devices[0], keras.DTypePolicy(precision).compute_dtype)
    processes = strategy.num_replicas_in_sync // len(devices)
    # Logical CPUs share the cores of one machine, which all worked in the measurement.
    return one * (processes if "CPU" in devices[0].upper() else strategy.num_replicas_in_sync)


@functools.cache
def _measure_device(device, dtype):
    """The best rate of products that grow until a larger one would take long: small ones do not fill a GPU."""
    best, size = 0.0, SMALLEST
    while size <= LARGEST and 2 * size**3 <= LONG * (best or math.inf):
        best = max(best, measure_matmul_peak(dtype, seconds=0.15, size=size, device=device))
        size *= 2
    return best


def measure_matmul_peak(dtype, seconds=1.0, size=1_024, device=None):
    """FLOP/s that TensorFlow reaches here in a product of two square matrices: the best of all in so many seconds."""
    with tf.device(device):
        left, right = (tf.cast(tf.random.stateless_normal((size, size), (0, seed)), dtype) for seed in (1, 2))
        best, started = math.inf, time.perf_counter()
        multiply = tf.function(lambda: tf.reduce_sum(tf.matmul(left, right)[0]))
        multiply().numpy()
        while time.perf_counter() - started < seconds or best == math.inf:
            before = time.perf_counter()
            multiply().numpy()  # waits for the product
            best = min(best, time.perf_counter() - before)
    return 2 * size**3 / best
