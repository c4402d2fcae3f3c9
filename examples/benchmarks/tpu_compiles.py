"""Does a training step compile for TPUs, and is it as large as the planner says? No TPU is needed, and none is used.

    python examples/benchmarks/tpu_compiles.py            both compilers, 13 compilations: 7 minutes on 2 quiet cores
    python examples/benchmarks/tpu_compiles.py --quick    three of them: a minute

1. TensorFlow's: forward and backward pass of each recipe, the very function of the trainer, become HLO for a TPU. No
   dimension of it may be dynamic, that is, `<=` may not occur: a TPU's shapes are those that it was compiled for.
2. JAX's: the whole step with Keras on JAX, clipping, guard and optimiser included, again the very function of the
   trainer, is compiled for chips that are not here: v5e and v6e, one of them or several, with the model on each or
   divided among them. The compiler says how many operations a step has and how much memory it takes. Beside it stands
   what `tf_llm.training.costs` says. Operations have to agree to a tenth; memory may never be under and at most three
   tenths above.

The operations of the planner are those of matrix products; the compiler counts all. The compiler's memory is what it
allocates, or what is alive at once, whichever is more. Of a step that fits on the chip for a good part (tiny with 32
rows) neither says much, so the rows are chosen for it not to; the recipes have their own 16.
Where rows come in parts, both count the operations of one part.

It takes two further environments, or one if this one has libtpu:

    python3 -m venv .venv-tpu && .venv-tpu/bin/pip install tensorflow-tpu==2.20.0 libtpu==0.0.21.1 \\
        'keras>=3.13,<3.16' 'nltk>=3.10.1,<3.11' 'fastwarc<3' 'resiliparse<3' 'sentencepiece<0.3' tqdm
    python3 -m venv .venv-jax-tpu && .venv-jax-tpu/bin/pip install -e '.[jax]' libtpu

You should see two tables, all of whose ratios are near 1.
"""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
from absl import app, flags

REPOSITORY = Path(__file__).resolve().parents[2]
HLO = Path(__file__).parent / "peers" / "tpu_hlo.py"
FLOPS_GOAL, MEMORY_GOAL = 0.1, 1.3
# libtpu would ask a cloud about its surroundings, and lock out a second process.
LIBTPU = {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One compilation."""

    model: str  # a recipe, with its own training, or a size, with AdamW, clipping and smoothed targets
    rows: int  # on one device
    topology: str = "v5e:1x1"  # as libtpu calls it
    precision: str = "mixed_bfloat16"  # a Keras dtype policy
    divided: int = 1  # devices that share one model
    parts: int = 1  # of the rows, one behind the other

    @property
    def label(self):
        """What it is called in the table."""
        extras = [self.precision] * (self.precision == "float32")
        extras += [f"model on {self.divided}"] * (self.divided > 1) + [f"{self.parts} parts"] * (self.parts > 1)
        return ", ".join([f"{self.model} {self.topology}", f"{self.rows} rows", *extras])


QUICK = [Case(model="tiny", rows=64), Case(model="tiny", rows=64, topology="v5e:2x4")]
CASES = [
    Case(model="article", rows=16),
    Case(model="transformer", rows=16),
    Case(model="t5", rows=16),
    Case(model="best", rows=16),
    *QUICK,
    Case(model="small", rows=32),
    Case(model="small", rows=32, precision="float32"),
    Case(model="small", rows=32, parts=2),
    Case(model="small", rows=32, topology="v5e:2x4"),
    Case(model="small", rows=32, topology="v5e:2x4", divided=2),
    Case(model="small", rows=32, topology="v6e:2x2"),
    Case(model="base", rows=16),
]

_QUICK = flags.DEFINE_bool("quick", False, "One recipe through TensorFlow, two small models through JAX.")
_TPU_PYTHON = flags.DEFINE_string(
    "tpu_python",
    os.environ.get("TF_LLM_TPU_PYTHON", str(REPOSITORY / ".venv-tpu" / "bin" / "python")),
    "The Python that has tensorflow-tpu; else TF_LLM_TPU_PYTHON, else that of .venv-tpu.",
)
_JAX_PYTHON = flags.DEFINE_string(
    "jax_python",
    os.environ.get("TF_LLM_JAX_TPU_PYTHON")
    or (sys.executable if importlib.util.find_spec("libtpu") else str(REPOSITORY / ".venv-jax-tpu" / "bin" / "python")),
    "The Python that has jax and libtpu; else TF_LLM_JAX_TPU_PYTHON, else this one, else that of .venv-jax-tpu.",
)
_CASE = flags.DEFINE_string("case", "", "Compile this one in this process, as JSON; print what the compiler says.")


def compile_case(case):
    """What XLA's compiler for TPUs says of a step, beside what the planner says."""
    import jax
    from jax.experimental import topologies

    import tf_llm
    from tf_llm.recipes import RECIPES
    from tf_llm.training.costs import count_flops, count_memory
    from tf_llm.training.jax_layouts import Layout
    from tf_llm.training.jax_step import JaxStep
    from tf_llm.training.optimizers import TrainingConfig

    devices = topologies.get_topology_desc(platform="tpu", topology_name=case.topology).devices
    layout = Layout(devices, model=case.divided)
    if case.model in RECIPES:
        run = RECIPES[case.model]()
        model_config, training = run.model, run.training
    else:
        model_config = tf_llm.build_size(case.model)
        training = TrainingConfig(optimizer="adamw", weight_decay=0.01, clip_norm=1.0, label_smoothing=0.1)
    rows = case.rows * layout.row_devices
    training = dataclasses.replace(training, batch_size=rows * case.parts, accumulation=case.parts)
    model = tf_llm.build_model(model_config, case.precision)
    model.compile(tf_llm.build_optimizer(training), tf_llm.build_loss(training))
    step = JaxStep(model, training, layout)

    def describe(shape, dtype, sharding):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    state = step.map_state(lambda variable: describe(variable.shape, variable.dtype, layout.of_variable(variable)))
    batch = training.batch_size
    features = {each.name: describe((batch, *each.shape[1:]), "int32", layout.of_rows) for each in model.inputs}
    targets = (batch, model_config.target_length)
    said = (describe(targets, "int32", layout.of_rows), describe(targets, "float32", layout.of_rows))
    limit = describe((), "float32", layout.of_numbers)
    compiled = step.compiled.lower(state, (features, *said), limit).compile()
    memory = compiled.memory_analysis()
    allocated = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    allocated += memory.output_size_in_bytes - memory.alias_size_in_bytes
    planned = count_memory(
        model_config, training.optimizer, case.precision, case.rows, accumulates=case.parts > 1, compiled=True
    )
    return {
        "flops": compiled.cost_analysis()["flops"],
        "planned_flops": case.rows * sum(count_flops(model_config).values()) / case.divided,
        "memory": max(allocated, memory.peak_memory_in_bytes),
        "planned_memory": sum(planned.values()),
    }


def run_python(python, arguments, **environment):
    """The lines of JSON that a process printed; ends with status 2 where it failed."""
    environment = os.environ | LIBTPU | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(REPOSITORY)} | environment
    try:
        process = subprocess.run([python, *arguments], env=environment, capture_output=True, text=True)
    except OSError as error:
        refuse(f"{python} does not run ({error.strerror})")
    if process.returncode:
        refuse(f"{python} failed: {(process.stderr.strip().splitlines() or ['it says nothing'])[-1]}")
    return [json.loads(line) for line in process.stdout.splitlines() if line.startswith("{")]


def refuse(reason):
    makes = "\n".join(line.strip() for line in __doc__.splitlines() if "-m venv" in line or "'keras" in line)
    print(f"could not run: {reason}. It takes two environments, whose Pythons TF_LLM_TPU_PYTHON and "
          f"TF_LLM_JAX_TPU_PYTHON may name:\n{makes}")  # fmt: skip
    sys.exit(2)


def main(_):
    if _CASE.value:
        return print(json.dumps(compile_case(Case(**json.loads(_CASE.value)))))
    holds = True
    print(f"{'through TensorFlow: forward, backward':48}{'lines of HLO':>14}{'products':>10}{'dynamic':>10}")
    for found in run_python(_TPU_PYTHON.value, [str(HLO), *["--recipes=best"] * _QUICK.value]):
        holds &= found["dynamic"] == 0 and found["products"] > 0
        print(f"{found['recipe']:48}{found['lines']:14,}{found['products']:10}{found['dynamic']:10}")
    print(f"\n{'through JAX: the whole step':48}{'GFLOP':>12}{'planned':>9}{'MB':>12}{'planned':>9}")
    ratios = []
    for case in QUICK if _QUICK.value else CASES:
        arguments = [str(Path(__file__).resolve()), f"--case={json.dumps(dataclasses.asdict(case))}"]
        (found,) = run_python(_JAX_PYTHON.value, arguments, KERAS_BACKEND="jax", JAX_PLATFORMS="cpu")
        flops, memory = (found[f"planned_{what}"] / found[what] for what in ("flops", "memory"))
        holds &= abs(flops - 1) <= FLOPS_GOAL
        if case.divided == 1:  # the planner knows no divided models
            ratios.append(memory)
        planned = f"{memory:9.2f}" if case.divided == 1 else f"{'—':>9}"
        print(f"{case.label:48}{found['flops'] / 1e9:12,.1f}{flops:9.2f}{found['memory'] / 1e6:12,.0f}{planned}")
    worst, least = max(ratios), min(ratios)
    holds &= least >= 1 and worst <= MEMORY_GOAL
    print(f"\nplanned memory over the compiler's: {least:.2f} to {worst:.2f}")
    record = {"name": "tpu_compiles", "value": round(worst, 3), "goal": MEMORY_GOAL}
    print(json.dumps(record | {"unit": "planned memory over the compiler's, at worst", "holds": bool(holds)}))
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    app.run(main)
