"""Import closure: the project's files that a module imports, directly or not, read from their text.

A result depends on the code that made it: memos are keyed by these files, and the test of dvc.yaml fails when a stage
does not list one of them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tasks.ground.errors import ModelCodeError


def closure(module_file: Path, root: Path) -> set[Path]:
    """The file itself, every file below `root` that it imports, transitively, and the `__init__.py` of their packages.

    Imports count wherever they stand, inside functions too; those below `if TYPE_CHECKING:` never run and do not.
    A module that is loaded by a name computed at run time cannot be seen.

    Raises:
        ModelCodeError: a file is not Python.
    """
    closed: set[Path] = set()
    waiting = {module_file, *_files(_dotted(module_file, root), root)}
    while waiting:
        file = waiting.pop()
        closed.add(file)
        for name in _imported(file, root):
            waiting |= set(_files(name, root)) - closed
    return closed


def _imported(file: Path, root: Path) -> Iterator[str]:
    """The dotted names that a file may import; `from a import b` gives `a.b`, whether or not b is a module."""
    try:
        tree = ast.parse(file.read_bytes(), filename=str(file))
    except SyntaxError as error:
        raise ModelCodeError(f"{file.relative_to(root)}, line {error.lineno}: {error.msg}") from None
    for node in _executed(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, file, root)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """Every node that may run: all but the bodies of `if TYPE_CHECKING:`."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and _is_type_checking(child.test):
            for other in child.orelse:
                yield from _executed(other)
        else:
            yield from _executed(child)


def _is_type_checking(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else test.id if isinstance(test, ast.Name) else ""
    return name == "TYPE_CHECKING"


def _base(node: ast.ImportFrom, file: Path, root: Path) -> str:
    """The absolute name that `from … import` starts at."""
    if not node.level:
        return node.module or ""
    package = list(file.relative_to(root).parent.parts)
    kept = package[: len(package) - (node.level - 1)]
    return ".".join([*kept, *([node.module] if node.module else [])])


def _dotted(file: Path, root: Path) -> str:
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _files(name: str, root: Path) -> Iterator[Path]:
    """The files below root that importing a dotted name runs: the packages on the way, and the module."""
    folder = root
    for part in name.split("."):
        if not part:
            return
        if (module := folder / f"{part}.py").is_file():
            yield module
            return
        folder = folder / part
        if (package := folder / "__init__.py").is_file():
            yield package
        elif not folder.is_dir():
            return
