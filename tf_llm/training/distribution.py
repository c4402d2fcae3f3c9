"""Which devices train: tf.distribute strategies by name, and the precision that suits them."""

import json
import logging
import os
from pathlib import Path

import tensorflow as tf

from tf_llm.contracts import UserError

logger = logging.getLogger(__name__)
CPU_INFORMATION = Path("/proc/cpuinfo")  # Linux; elsewhere nothing is known of the CPU


def strategy(name="auto"):
    """A tf.distribute strategy by name.

    Args:
        name: "cpu", "gpu" (the first), "mirrored" (every GPU of this machine, or every logical CPU where there is
            none), "workers" (the same on several machines, of which TF_CONFIG tells), "tpu" (this machine's, as on
            Colab), or "auto": the TPU if there is one, else all GPUs, else the CPU.

    Raises:
        UserError: an unknown name, or a device that is not there.

    >>> with strategy("cpu").scope():
    ...     weight = tf.Variable(0.0)  # or a model: what is made in here lives on these devices
    """
    if name == "auto":
        name = detect()
        logger.info("training on %s", name)
    if name not in STRATEGIES:
        known = sorted([*STRATEGIES, "auto"])
        raise UserError(f"strategy expected one of {known}. Received: {name!r}. Choose one of them")
    return STRATEGIES[name]()


def detect():
    """The name of the strategy that uses the best devices of this machine."""
    if tf.config.list_logical_devices("TPU"):
        return "tpu"
    gpus = len(tf.config.list_logical_devices("GPU"))
    return "mirrored" if gpus > 1 else "gpu" if gpus else "cpu"


def build_one_device(kind):
    """Trains on the first device of a kind, "CPU" or "GPU"."""
    if not tf.config.list_logical_devices(kind):
        raise UserError(
            f"strategy expected a {kind}. Received: none that TensorFlow sees. Install its driver, or choose 'auto'"
        )
    return tf.distribute.OneDeviceStrategy(f"/{kind.lower()}:0")


def build_mirrored():
    """Trains on all GPUs, or all logical CPUs, of this machine: a copy of the model on each, gradients summed."""
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    names = [device.name for device in devices]
    if devices[0].device_type == "CPU":  # NCCL, the default, speaks to GPUs alone
        return tf.distribute.MirroredStrategy(names, cross_device_ops=tf.distribute.ReductionToOneDevice())
    return tf.distribute.MirroredStrategy(names)


def build_workers():
    """Trains on several machines, or processes, that run the same program, gradients summed over the network.

    Each has to be told of all of them by the environment variable TF_CONFIG, before it starts TensorFlow:

        TF_CONFIG='{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, "task": {"type": "worker", "index": 0}}'

    The one with index 0 is the chief.
    """
    workers = _read_cluster().get("cluster", {}).get("worker", [])
    if not workers:
        raise UserError(
            'strategy expected the environment variable TF_CONFIG to name workers, as in {"cluster": {"worker": '
            '["10.0.0.1:2222", "10.0.0.2:2222"]}, "task": {"type": "worker", "index": 0}}. Received: '
            f"{os.environ.get('TF_CONFIG')!r}. Set it for each worker, or choose 'auto'"
        )
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except (RuntimeError, ValueError, tf.errors.OpError) as error:
        raise UserError(
            f"strategy expected to reach all workers {workers}. Received: {str(error).splitlines()[0]} Ask for the "
            "strategy before TensorFlow has computed anything, and start all workers"
        ) from error


def is_chief(name):
    """Whether this process prepares, writes and reports for all: all do but those that TF_CONFIG calls another worker.

    It is the task "chief" where the cluster has one, and else the first worker, as TensorFlow has it.

    Args:
        name: as for `strategy`. TensorFlow is not asked anything, so this may come before it.
    """
    if name != "workers":
        return True
    config = _read_cluster()
    task, first = config.get("task", {}), "chief" if config.get("cluster", {}).get("chief") else "worker"
    return task.get("type", first) == first and task.get("index", 0) == 0


def build_mean(strategy):
    """A function of a number that returns its mean over all workers: the same on each, so that all may decide by it.

    Each of them has to call it equally often. Where there are no workers, the mean is the number itself.

    >>> build_mean(strategy("cpu"))(2.5)
    2.5
    """
    if not strategy.extended._in_multi_worker_mode():
        return float

    @tf.function
    def reduce(number):
        return strategy.reduce(tf.distribute.ReduceOp.MEAN, strategy.run(tf.identity, args=(number,)), axis=None)

    return lambda number: float(reduce(tf.constant(number, tf.float32)))


def distribute(strategy, make_batches, first):
    """Batches for the devices of a strategy, from number `first` on; of several workers, each makes its own rows alone.

    TensorFlow would have each of them make whole batches, and throw away what the others need.

    Args:
        strategy: a tf.distribute strategy, or a layout of JAX, which knows no workers.
        make_batches: function of the number of the first batch -> endless dataset. Where there are workers, of the
            number of this one and of how many there are, too: then its batches are that share of the rows.
        first: number of the first batch.
    """
    if not hasattr(strategy, "extended") or not strategy.extended._in_multi_worker_mode():
        return strategy.experimental_distribute_dataset(make_batches(first))

    def make_share(context):
        share = make_batches(first, context.input_pipeline_id, context.num_input_pipelines)
        devices = context.num_replicas_in_sync // context.num_input_pipelines  # of this worker
        rows = tf.nest.flatten(share.element_spec)[0].shape[0]
        return share if devices == 1 else share.rebatch(rows // devices, drop_remainder=True)

    return strategy.distribute_datasets_from_function(make_share)


def build_tpu():
    """Trains on the TPU of this machine (Colab and TPU virtual machines: `tpu="local"`)."""
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu="local")
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, tf.errors.OpError) as error:
        raise UserError(
            f"strategy expected a TPU on this machine. Received: {str(error).splitlines()[0]} Install tensorflow-tpu "
            "where there is one, or choose 'auto'"
        ) from error
    return tf.distribute.TPUStrategy(resolver)


def _read_cluster():
    """What TF_CONFIG says; an empty dictionary where it says nothing that can be read."""
    try:
        cluster = json.loads(os.environ.get("TF_CONFIG") or "{}")
    except ValueError:
        return {}
    return cluster if isinstance(cluster, dict) else {}


STRATEGIES = {
    "cpu": lambda: build_one_device("CPU"),
    "gpu": lambda: build_one_device("GPU"),
    "mirrored": build_mirrored,
    "workers": build_workers,
    "tpu": build_tpu,
}


def choose_precision(name):
    """A Keras dtype policy: `name` itself, or for "auto" mixed_bfloat16 where it is faster and float32 elsewhere.

    bfloat16 is faster on TPUs, on GPUs from compute capability 8.0 (Ampere), and on CPUs with AVX512-BF16 or AMX;
    on other CPUs it is emulated, and slower than float32.
    """
    if name != "auto":
        return name
    if tf.config.list_logical_devices("TPU"):
        return "mixed_bfloat16"
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
        return "mixed_bfloat16" if capability >= (8, 0) else "float32"
    flags = CPU_INFORMATION.read_text().split() if CPU_INFORMATION.exists() else []
    return "mixed_bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"
