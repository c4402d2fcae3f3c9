"""Command-line flags for every setting of a run, made from the fields of the settings themselves.

A field `num_layers` of the stage `model` is the flag `--model.num_layers`; its help is the comment behind the field.
A flag that is not given leaves what the recipe says. Only this module and examples/ know absl's flags.
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
from tf_llm.crawl import (
    CommonCrawl,
    Csv,
    HtmlFiles,
    JsonLines,
    Parquet,
    SelfCrawl,
    TextFiles,
    Warc,
    Wikipedia,
    WikipediaDump,
    read_files,
)
from tf_llm.crawl.common_crawl import INDEX_ADDRESS
from tf_llm.crawl.download import answers
from tf_llm.model.sizes import SIZES, build_size
from tf_llm.recipes import RECIPES

logger = logging.getLogger(__name__)

FIELD = re.compile(r"^    (\w+): .*?#\s*(.*)$", re.MULTILINE)
DEFINE = {
    "int": flags.DEFINE_integer,
    "float": flags.DEFINE_float,
    "bool": flags.DEFINE_bool,
    "str": flags.DEFINE_string,
}
KEPT = ("vocabulary_size", "source_length", "target_length")  # of the recipe's model, whatever --size says
FILE_SOURCES = {"json_lines": JsonLines, "warc": Warc}  # each reads the files that the flag of its name lists
PATH_SOURCES = {  # each reads the files that --path lists; "files" goes by their names
    "csv": Csv,
    "files": read_files,
    "html": HtmlFiles,
    "parquet": Parquet,
    "text": TextFiles,
    "wikipedia": WikipediaDump,  # or downloads a dump where there are none
}
WITH_COLUMNS = ("csv", "files", "parquet")
SOURCES = ("auto", "common_crawl", "self_crawl", *FILE_SOURCES, *PATH_SOURCES)


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
    flags.DEFINE_enum("source", "auto", SOURCES, "Pages; auto is Common Crawl, or self_crawl where that is silent.")
    flags.DEFINE_multi_string("warc", [], "WARC or WET files for --source=warc, a path or a pattern.")
    flags.DEFINE_multi_string("json_lines", [], "JSON Lines files for --source=json_lines, a path or a pattern.")
    flags.DEFINE_multi_string("path", [], f"Files for {', '.join(sorted(PATH_SOURCES))}: a path, pattern or folder.")
    flags.DEFINE_string("text_column", "text", "Tables and JSON Lines: the column of texts.")
    flags.DEFINE_string("url_column", "url", "Tables and JSON Lines: the column of addresses.")
    flags.DEFINE_string("language", "en", "Wikipedia: which one, as in its address.")
    flags.DEFINE_string("dump", "latest", "Wikipedia: the date of the dump, such as 20261101.")
    flags.DEFINE_string("crawl", None, "Common Crawl: which one, such as CC-MAIN-2026-39; by default the newest.")
    flags.DEFINE_integer("files", 1, "Common Crawl and Wikipedia: how many files.", lower_bound=1)
    flags.DEFINE_float("megabytes", 100.0, "Common Crawl: how much of each file; 0 is all of it.", lower_bound=0)


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


def build_source():
    """The source of pages that the flags name. Raises UserError where a file is missing."""
    name = flags.FLAGS.source
    for other in FILE_SOURCES:
        if flags.FLAGS[other].value and name == "auto":
            name = other
        elif flags.FLAGS[other].value and name != other:
            raise UserError(
                f"expected --{other} with --source={other} alone. Received: --source={name}. Leave one of them out"
            )
    if name in FILE_SOURCES:
        columns = (flags.FLAGS.text_column, flags.FLAGS.url_column) if name == "json_lines" else ()
        return FILE_SOURCES[name](flags.FLAGS[name].value, *columns)
    paths = flags.FLAGS.path
    if paths and name == "auto":
        name = "files"
    if paths and name not in PATH_SOURCES:
        raise UserError(
            f"expected --path with --source={'|'.join(PATH_SOURCES)}. Received: --source={name}. Leave one of them out"
        )
    if name == "wikipedia" and not paths:
        return Wikipedia(flags.FLAGS.language, flags.FLAGS.dump, files=flags.FLAGS.files)
    if name in PATH_SOURCES:
        columns = (flags.FLAGS.text_column, flags.FLAGS.url_column) if name in WITH_COLUMNS else ()
        return PATH_SOURCES[name](paths, *columns)
    if name == "auto":
        name = "common_crawl" if answers(f"{INDEX_ADDRESS}/collinfo.json") else "silent"
    if name == "common_crawl":
        logger.info("reading pages of Common Crawl (--source=self_crawl needs no network)")
        return CommonCrawl(flags.FLAGS.crawl, files=flags.FLAGS.files, megabytes=flags.FLAGS.megabytes or None)
    silent = "Common Crawl does not answer within 5 s: " if name == "silent" else ""
    logger.info("%sreading the documentation that is installed with this Python", silent)
    return SelfCrawl()


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
