"""What Python source says about itself, read with `ast`: nothing is imported and nothing is executed.

module  ->  (title, [(heading, docstring)])      `read_module`
docstring  ->  (HTML element, text)              `split_paragraphs`
"""

import ast
import re
import textwrap
import warnings
from collections.abc import Iterator

FENCE = re.compile(r"^[ \t]*```[^\n]*\n(.*?)^[ \t]*```[ \t]*$", re.MULTILINE | re.DOTALL)
BLANK_LINE = re.compile(r"\n[ \t]*\n")
UNDERLINE = re.compile(r"\s*([-=~^*#])\1{2,}\s*")


def read_module(name: str, source: bytes, topics: str = "") -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Yields (title of the page, [(heading, docstring)]): one page, or one a topic of the module named `topics`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about escape sequences in other people's strings
        tree = ast.parse(source)
    if name == topics:
        for statement in tree.body:
            if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Dict):
                for topic, text in ast.literal_eval(statement.value).items():
                    yield topic, [("", text)]
    else:
        yield name, [("", ast.get_docstring(tree) or ""), *list_definitions(tree)]


def list_definitions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yields (signature, docstring) of the classes, functions and methods below a node, in the order of the source."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            if docstring := ast.get_docstring(child):
                arguments = child.args
                for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
                    argument.annotation = None  # the text below says it better
                yield f"{prefix}{child.name}({ast.unparse(arguments)})", docstring
        elif isinstance(child, ast.ClassDef):
            yield f"class {prefix}{child.name}", ast.get_docstring(child) or ""
            yield from list_definitions(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.stmt | ast.excepthandler):  # definitions under an `if` or a `try`
            yield from list_definitions(child, prefix)


def split_paragraphs(docstring: str) -> Iterator[tuple[str, str]]:
    r"""Yields (HTML element, text) of the paragraphs, headings and examples of a docstring.

    >>> list(split_paragraphs("Adds.\n\nReturns\n-------\nThe sum.\n\n>>> add(1, 2)\n3"))
    [('p', 'Adds.'), ('h3', 'Returns'), ('p', 'The sum.'), ('pre', '>>> add(1, 2)\n3')]
    """
    for index, part in enumerate(FENCE.split(docstring)):
        if index % 2:
            yield "pre", textwrap.dedent(part).strip("\n")
            continue
        for block in BLANK_LINE.split(part):
            lines = block.strip("\n").splitlines()
            if len(lines) > 1 and UNDERLINE.fullmatch(lines[1]):
                yield "h3", lines[0].strip()
                lines = lines[2:]
            text = textwrap.dedent("\n".join(lines)).strip()
            if text:
                yield ("pre" if text.startswith(">>>") else "p"), text
