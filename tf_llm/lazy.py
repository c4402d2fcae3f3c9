"""Names of a package that are imported when they are first asked for.

    __getattr__, __dir__ = look_up_later("tf_llm.crawl", {"Warc": "tf_llm.crawl.warc"})

Python asks a module's own `__getattr__` for what it does not have (PEP 562). So a package can offer many names, some of
them heavy, and a worker process that needs one of them does not wait for the rest.
"""

import importlib
from collections.abc import Callable, Iterable, Mapping


def look_up_later(
    package: str, modules: Mapping[str, str], others: Iterable[str] = ()
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """The functions `__getattr__` and `__dir__` of a package.

    Args:
        package: its dotted name.
        modules: name -> the module that has it; a module of the package has its own name.
        others: names of the package that are there already.

    >>> find, names = look_up_later("json", {"JSONDecoder": "json.decoder", "tool": "json.tool"}, ["dumps"])
    >>> find("JSONDecoder").__module__, find("tool").__name__, names()
    ('json.decoder', 'json.tool', ['JSONDecoder', 'dumps', 'tool'])
    >>> find("yaml")
    Traceback (most recent call last):
    AttributeError: module 'json' has no attribute 'yaml'. Known: JSONDecoder, dumps, tool
    """
    known = sorted({*modules, *others})

    def find(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}. Known: {', '.join(known)}")
        module = importlib.import_module(modules[name])
        return module if module.__name__ == f"{package}.{name}" else getattr(module, name)

    return find, lambda: known
