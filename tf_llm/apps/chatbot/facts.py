"""What there is to know: one line on each public function and class of the documentation that is installed here.

    math.sqrt  ->  "Return the square root of x."  ->  https://documentation.invalid/python/math.html#math.sqrt

A fact is a name, the first sentence of what its documentation says, and the place where it says so. Sources in Python
are read with `ast`, as for the corpus (crawl/self_crawl.py): nothing of theirs is imported or executed. What the
standard library has in C, `math` for one, has no such source. A fixed list of its modules is asked for `__doc__`.
"""

import ast
import importlib
import inspect
import re
import types
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tf_llm.crawl.self_crawl import ADDRESS, STANDARD_LIBRARY, hash_name, list_modules

PACKAGES = (STANDARD_LIBRARY, "numpy", "keras", "nltk")
# Modules of the standard library of which the whole or a part is written in C. None of them does anything on import.
NATIVE = (
    *("builtins", "array", "binascii", "bisect", "cmath", "codecs", "collections", "datetime", "functools", "gc"),
    *("heapq", "io", "itertools", "json", "marshal", "math", "operator", "os", "pickle", "random", "re", "select"),
    *("socket", "string", "struct", "sys", "time", "types", "unicodedata", "warnings", "weakref", "zlib"),
)
LEAST_WORDS, MOST_CHARACTERS = 3, 100  # of a summary; a longer one is no summary
MOST_PASSAGE = 600  # characters of a docstring that are kept to be shown and searched
SENTENCE_END = re.compile(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)(?<!etc\.)\s+(?=\S)")
BLANK_LINE = re.compile(r"\n[ \t]*\n")
ROLE = re.compile(r":\w+:`~?([^`<]+?)(?:\s*<[^`>]*>)?`")  # :class:`Name` of Sphinx
CODE = re.compile(r"`+([^`]+)`+")


class Fact(NamedTuple):
    """One name and what it is."""

    name: str  # by which it is asked for: "math.sqrt", "str.split"
    kind: str  # "function", "class" or "method"
    summary: str  # the first sentence of its documentation
    passage: str  # the beginning of its documentation
    address: str  # where that stands


def collect_facts(packages: Iterable[str] = PACKAGES, counts: Counter[str] | None = None) -> list[Fact]:
    """The facts of packages: of each package in the order of a hash, which mixes modules and is the same everywhere.

    Args:
        packages: names as `SelfCrawl` knows them.
        counts: a Counter to which is added why a documented name gave no fact.

    Raises:
        UserError: a package is not installed.

    >>> facts = {fact.name: fact for fact in collect_facts(["python"])}
    >>> facts["math.sqrt"].summary
    'Return the square root of x.'
    >>> facts["textwrap.dedent"].address
    'https://documentation.invalid/python/textwrap.html#textwrap.dedent'
    """
    counts, facts = Counter() if counts is None else counts, {}
    for package in packages:
        of_package = {}
        readers = [read_native(name) for name in NATIVE] if package == STANDARD_LIBRARY else []
        readers.append(read_package(package, counts))
        for reader in readers:
            for page, name, kind, docstring in reader:
                if name in facts or name in of_package:
                    counts["a name that was there before"] += 1
                elif summary := summarise(docstring, name):
                    address = f"{ADDRESS.format(package=package, name=page)}#{name}"
                    of_package[name] = Fact(name, kind, summary, shorten(docstring), address)
                else:
                    counts["no summary of one sentence"] += 1
        facts |= {name: of_package[name] for name in sorted(of_package, key=hash_name)}
    return list(facts.values())


def read_package(package: str, counts: Counter[str]) -> Iterator[tuple[str, str, str, str]]:
    """Yields (page, name, kind, docstring) of the public functions and classes of a package's sources."""
    for page, path in sorted(list_modules(package)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about escape sequences in other people's strings
                tree = ast.parse(path.read_bytes())
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
            counts["unreadable module"] += 1
            continue
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name, docstring = name_publicly(page, node), ast.get_docstring(node)
                if name and docstring:
                    yield page, name, "class" if isinstance(node, ast.ClassDef) else "function", docstring


def name_publicly(module: str, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> str | None:
    """The name under which users know a definition, or None where it is not for them.

    Large packages define things in modules of their own and say in a decorator where they are to be found:

    >>> (dense,) = ast.parse("@keras_export('keras.layers.Dense')\\nclass Dense: 0").body
    >>> name_publicly("keras.src.layers.core.dense", dense)
    'keras.layers.Dense'
    >>> name_publicly("textwrap", ast.parse("def dedent(text): 0").body[0])
    'textwrap.dedent'
    >>> name_publicly("textwrap", ast.parse("def _munge(text): 0").body[0])
    """
    for decorator in node.decorator_list:
        if not isinstance(decorator, ast.Call):
            continue
        by = ast.unparse(decorator.func).rpartition(".")[2]
        texts = [part.value for part in ast.walk(decorator) if isinstance(part, ast.Constant)]
        texts = [text for text in texts if isinstance(text, str)]
        if by == "keras_export" and texts:
            return texts[0]
        if by == "set_module" and texts:
            return f"{texts[0]}.{node.name}"
        if by == "array_function_dispatch":  # NumPy's: by default of the nearest module that has a public name
            parents = [part for part in module.split(".")[:-1] if not part.startswith("_") and part != "lib"]
            return f"{texts[0] if texts else '.'.join(parents)}.{node.name}"
    parts = [*module.split("."), node.name]
    if any(part.startswith("_") for part in parts) or "src" in parts:
        return None
    return ".".join(parts)


def read_native(module: str) -> Iterator[tuple[str, str, str, str]]:
    """Yields (page, name, kind, docstring) of what a module of the standard library has in C, methods of types too."""
    loaded = importlib.import_module(module)
    prefix = "" if module == "builtins" else f"{module}."
    for name in sorted(getattr(loaded, "__all__", dir(loaded))):
        thing = getattr(loaded, name, None)
        if name.startswith("_") or not is_native(thing):
            continue
        if isinstance(thing, type):
            yield module, prefix + name, "class", read_doc(thing)
            if not issubclass(thing, BaseException):
                for method, function in sorted(vars(thing).items()):
                    if not method.startswith("_") and isinstance(function, types.MethodDescriptorType):
                        yield module, f"{prefix}{name}.{method}", "method", read_doc(function)
        else:
            yield module, prefix + name, "function", read_doc(thing)


def is_native(thing: object) -> bool:
    """Whether it is a function or a class written in C."""
    if inspect.isbuiltin(thing):
        return True
    return isinstance(thing, type) and not thing.__flags__ & (1 << 9)  # Py_TPFLAGS_HEAPTYPE: of a `class` statement


def read_doc(thing: object) -> str:
    """Its documentation. Some classes have a descriptor in that place, which tells only of their instances."""
    return thing.__doc__ if isinstance(thing.__doc__, str) else ""


def summarise(docstring: str, name: str) -> str | None:
    """The first sentence of a docstring, or None where it has none that can stand for the whole.

    >>> summarise("dir([object]) -> list of strings\\n\\nReturn the names in the current scope. Or others.", "dir")
    'Return the names in the current scope.'
    >>> summarise("See :class:`Other` and ``x``.", "it")
    'See Other and x.'
    >>> summarise("TODO", "it")
    """
    paragraphs = split_text(docstring, name)
    sentence = SENTENCE_END.split(paragraphs[0])[0] if paragraphs else ""
    fits = len(sentence) <= MOST_CHARACTERS and len(sentence.split()) >= LEAST_WORDS
    return sentence if fits and sentence[0].isalpha() and sentence.isascii() and sentence.isprintable() else None


def split_text(docstring: str, name: str = "") -> list[str]:
    """The paragraphs of a docstring, each on one line, without mark-up and without a signature in front."""
    text = inspect.cleandoc(docstring)
    paragraphs = [CODE.sub(r"\1", ROLE.sub(r"\1", " ".join(part.split()))) for part in BLANK_LINE.split(text)]
    paragraphs = [part for part in paragraphs if part]
    last = name.rpartition(".")[2]
    if paragraphs and last and re.match(rf"(\w+\.)*{re.escape(last)}\s?\(", paragraphs[0]):
        paragraphs = paragraphs[1:]
    return paragraphs


def shorten(docstring: str) -> str:
    """The first paragraphs of a docstring, as many as MOST_PASSAGE has room for; a long first one is cut at a word."""
    kept = ""
    for paragraph in split_text(docstring):
        if kept and len(kept) + len(paragraph) + 2 > MOST_PASSAGE:
            break
        kept += ("\n\n" if kept else "") + paragraph
    return kept if len(kept) <= MOST_PASSAGE else kept[:MOST_PASSAGE].rpartition(" ")[0] + " …"
