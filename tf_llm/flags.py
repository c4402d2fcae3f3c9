"""Command-line flags for every setting of a run, made from the fields of the settings themselves.

A field `num_layers` of the stage `model` is the flag `--model.num_layers`; its help is the comment behind the field.
A flag that is not given leaves what the recipe says. Where pages come from has flags of its own (source_flags.py). Only
these two modules and examples/ know absl's flags.
"""

import dataclasses
import inspect
import logging
import re
import sys

from absl import app, flags
from absl import logging as absl_logging

from tf_llm.config import STAGES, TOKENS
from tf_llm.contracts import UserError
from tf_llm.model.sizes import SIZES, build_size
from tf_llm.recipes import RECIPES
from tf_llm.source_flags import build_source as build_source  # it belongs to the flags, wherever it stands
from tf_llm.source_flags import define_source_flags

FIELD = re.compile(r"^    (\w+): .*?#\s*(.*)$", re.MULTILINE)
DEFINE = {
    "int": flags.DEFINE_integer,
    "float": flags.DEFINE_float,
    "bool": flags.DEFINE_bool,
    "str": flags.DEFINE_string,
}
KEPT = ("vocabulary_size", "source_length", "target_length")  # of the recipe's model, whatever --size says


def define_flags():
    """Defines the flags of a run and of its source. Call it once, before `launch`."""
    flags.DEFINE_enum("recipe", "article", sorted(RECIPES), "The settings to begin with.")
    flags.DEFINE_enum("size", None, sorted(SIZES), "A model by name, in place of the recipe's; its lengths stay.")
    flags.DEFINE_enum("tokens", None, sorted(TOKENS), "What the model reads and says.")
    for stage, config in STAGES.items():
        comments = dict(FIELD.findall(inspect.getsource(config)))
        for field in dataclasses.fields(config):
            kind = field.type if isinstance(field.type, str) else field.type.__name__
            DEFINE[kind](f"{stage}.{field.name}", None, f"{comments.get(field.name, '')} [{field.default}]")
    define_source_flags()


def build_run():
    """The `RunConfig` that the flags describe. Raises UserError where they contradict each other."""
    run = RECIPES[flags.FLAGS.recipe]()
    changes = {} if flags.FLAGS.tokens is None else {"tokens": flags.FLAGS.tokens}
    try:
        if flags.FLAGS.size is not None:
            kept = {name: getattr(run.model, name) for name in KEPT}
            model, training = build_size(flags.FLAGS.size, **kept), run.training
            if not model.output_bias:  # there is nothing that could begin as the frequencies
                training = dataclasses.replace(training, start_from_frequencies=False)
            run = dataclasses.replace(run, model=model, training=training)
        for stage, config in STAGES.items():
            given = {field.name: flags.FLAGS[f"{stage}.{field.name}"].value for field in dataclasses.fields(config)}
            given = {name: value for name, value in given.items() if value is not None}
            changes[stage] = dataclasses.replace(getattr(run, stage), **given)
        return dataclasses.replace(run, **changes)
    except ValueError as error:
        raise UserError(str(error)) from error


def find_origins():
    """{"stage.field": the flag that set it}, for the banner of a run."""
    origins = {}
    if flags.FLAGS.size is not None:
        own = [field.name for field in dataclasses.fields(STAGES["model"]) if field.name not in KEPT]
        origins = dict.fromkeys(
            ["training.start_from_frequencies", *(f"model.{name}" for name in own)], f"--size={flags.FLAGS.size}"
        )
    names = ["tokens", *(f"{stage}.{field.name}" for stage in STAGES for field in dataclasses.fields(STAGES[stage]))]
    return origins | {name: f"--{name}" for name in names if flags.FLAGS[name].value is not None}


def launch(main):
    """Runs `main()` with parsed flags: progress on stderr, an error with a remedy as one line, and its exit status."""

    def guarded(arguments):
        if arguments[1:]:
            raise app.UsageError(f"expected flags alone. Received: {' '.join(arguments[1:])}")
        package = logging.getLogger("tf_llm")
        package.addHandler(logging.StreamHandler())
        package.setLevel(logging.DEBUG if flags.FLAGS.verbosity > 0 else logging.INFO)
        package.propagate = False  # absl would print it again
        absl_logging.set_verbosity(absl_logging.WARNING)  # of TensorFlow's own remarks
        try:
            main()
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(error.exit_status)
        except KeyboardInterrupt:
            sys.exit(130)

    app.run(guarded)
