"""What the package offers, and that the README tells the truth about it."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tf_llm

REPOSITORY = Path(__file__).resolve().parent.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_every_public_name_is_there():
    for name in tf_llm.__all__:
        assert getattr(tf_llm, name) is not None
    assert set(dir(tf_llm)) >= set(tf_llm.__all__)
    with pytest.raises(AttributeError, match=r"no attribute 'trian'\. Known: .*train"):
        tf_llm.trian  # noqa: B018


def test_prepare_is_a_function_whatever_was_imported_before():
    """In a process that knows TensorFlow already: it is imported once, and this package anew each time."""
    code = (
        "import importlib, sys, tensorflow, keras\n"
        "for first in ('tf_llm.prepare.local', 'tf_llm.prepare.worker', 'tf_llm.run', 'tf_llm'):\n"
        "    for name in [name for name in sys.modules if name.partition('.')[0] == 'tf_llm']:\n"
        "        del sys.modules[name]\n"
        "    importlib.import_module(first)\n"
        "    import tf_llm\n"
        "    assert callable(tf_llm.prepare) and callable(tf_llm.train), first\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_importing_the_package_is_light():
    code = "import sys, tf_llm; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_python_in_the_readme_uses_what_there_is():
    code = "\n".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL))
    used = {ast.unparse(node) for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Attribute)}
    ours = sorted(name for name in used if re.fullmatch(r"tf_llm(\.\w+)+", name))
    assert len(ours) > 7
    for name in ours:
        thing = tf_llm
        for part in name.split(".")[1:]:
            thing = getattr(thing, part)


def test_files_and_folders_of_the_readme_exist():
    (tree,) = re.findall(r"```\n(tf_llm/.*?)```", README, re.DOTALL)
    named = re.findall(r"^  (\w+[./]\w*)", tree, re.MULTILINE)
    assert len(named) > 10
    for name in named:
        assert (REPOSITORY / "tf_llm" / name).exists(), name
    parts = {path.name for path in (REPOSITORY / "tf_llm").iterdir() if path.name not in ("__init__.py", "__pycache__")}
    assert not [part for part in parts if part.removesuffix("/") not in tree], "the map leaves something out"
    for script in re.findall(r"^\| `(\w+\.py)` \|", README, re.MULTILINE):
        assert (REPOSITORY / "examples" / "benchmarks" / script).exists()


def test_benchmarks_are_all_in_the_readme():
    for script in (REPOSITORY / "examples" / "benchmarks").glob("*.py"):
        assert script.name in README


def test_requirements_are_those_of_the_docstrings():
    setup = (REPOSITORY / "setup.py").read_text(encoding="utf-8")
    for extra in re.findall(r"tf_llm\[(\w+)\]|\.\[([\w,]+)\]", README):
        for name in "".join(extra).split(","):
            assert f'"{name}": [' in setup, name
