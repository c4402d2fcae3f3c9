"""The dependency rule of the house: who may import whom, read from the sources with `ast`."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "tf_llm"

# Higher floors may import lower ones. Folders that share a floor with others may not import each other.
FLOORS = {
    **dict.fromkeys(["contracts", "files", "languages", "lazy"], 0),
    **dict.fromkeys(["crawl", "text", "data", "model", "training", "decoding", "evaluation"], 1),
    **dict.fromkeys(["prepare", "config", "recipes", "hub", "load", "load_tf_models", "banner", "run"], 2),
    "apps": 3,
    **dict.fromkeys(["__init__", "source_flags", "flags", "cli"], 4),
}
# On the second floor the settings lie under what uses them.
SECOND = {
    "prepare": set(),
    "config": {"prepare"},
    "recipes": {"config"},
    "hub": set(),
    "load": {"config", "hub"},
    "load_tf_models": set(),
    "banner": {"config", "recipes"},
    "run": {"banner", "config", "load"},
}
# The package itself names its parts, some of which are imported when they are asked for.
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def part_of(module):
    """The folder or file below tf_llm that a dotted name belongs to."""
    return [*module.split("."), "__init__"][1]


def find_imports(path):
    """Dotted names of what a module imports, but for what only a type checker reads."""
    tree = ast.parse((PACKAGE / path).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            if node.module != "tf_llm":
                yield node.module
            if node.module.startswith("tf_llm"):  # one of its names may be a module, too
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def list_faults(path, imports):
    """What is wrong with the imports of a module."""
    own = path.parts[0].removesuffix(".py")
    for name in imports:
        if not name.startswith("tf_llm."):
            continue
        other = part_of(name)
        if other == own:
            continue
        if other not in FLOORS:
            yield f"{path} imports {name}, which is on no floor"
        elif FLOORS[other] > FLOORS[own] or (FLOORS[other] == FLOORS[own] == 1):
            yield f"{path} (floor {FLOORS[own]}) imports {name} (floor {FLOORS[other]})"
        elif FLOORS[other] == FLOORS[own] == 2 and other not in SECOND[own]:
            yield f"{path} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_nobody_imports_upwards_or_sideways(path):
    assert path.parts[0].removesuffix(".py") in FLOORS, f"{path} is on no floor"
    assert not list(list_faults(path, find_imports(path)))


def test_the_rule_sees_what_it_forbids():
    for path, name in (
        ("model/layers.py", "tf_llm.training.trainer"),
        ("text/words.py", "tf_llm.crawl.warc"),
        ("contracts.py", "tf_llm.text.words"),
        ("crawl/warc.py", "tf_llm.prepare.local"),
        ("prepare/local.py", "tf_llm.config"),
        ("config.py", "tf_llm.flags"),
        ("load.py", "tf_llm.run"),
        ("data/shards.py", "tf_llm.unheard_of"),
    ):
        assert list(list_faults(Path(path), [name])), (path, name)
    for path, name in (
        ("run.py", "tf_llm.load"),
        ("model/layers.py", "tf_llm.model.masks"),
        ("flags.py", "tf_llm.run"),
    ):
        assert not list(list_faults(Path(path), [name])), (path, name)


def test_the_model_knows_keras_alone():
    for path in MODULES:
        if path.parts[0] == "model":
            assert not [name for name in find_imports(path) if name.split(".")[0] in ("tensorflow", "jax", "torch")], (
                path
            )


def test_flags_are_known_to_flags_alone():
    for path in MODULES:
        if "absl" in {name.split(".")[0] for name in find_imports(path)}:
            assert str(path) in ("flags.py", "source_flags.py")


def test_no_module_is_long_and_none_is_a_drawer():
    for path in MODULES:
        lines = (PACKAGE / path).read_text(encoding="utf-8").count("\n")
        assert lines <= 350, f"{path}: {lines} lines. Does it still do one thing?"
        assert not re.search(r"utils?|common|helpers?|misc", path.stem.replace("common_crawl", "")), path


def test_there_is_no_circle():
    """Between modules, not only between folders."""
    graph = {}
    for path in MODULES:
        name = ".".join(("tf_llm", *path.with_suffix("").parts)).removesuffix(".__init__")
        graph[name] = {other for other in find_imports(path) if other.startswith("tf_llm")}
    done = set()

    def visit(name, trail):
        assert name not in trail, f"circle: {' -> '.join([*trail[trail.index(name) :], name])}"
        if name in graph and name not in done:
            for other in graph[name]:
                visit(other, [*trail, name])
            done.add(name)

    for name in graph:
        visit(name, [])
