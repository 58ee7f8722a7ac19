"""Import closure: the project's files that a module imports, directly or not, read from their text.

A result depends on the code that made it: memos are keyed by these files, and the test of dvc.yaml fails when a stage
does not list one of them.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import lru_cache
from importlib.util import resolve_name
from pathlib import Path
from typing import NamedTuple

from tasks.ground import files, settings
from tasks.ground.errors import ModelCodeError


def hashes(*sources: str) -> dict[str, str]:
    """Relative path → SHA-256 of all that modules and packages of the project are made of, sorted by path.

    Args:
        sources: a module's file; or a package's folder, of which every file counts: its code may read tables there.
    """
    needed: set[Path] = set()
    for source in (settings.ROOT / name for name in sources):
        needed |= closure(source / "__init__.py" if source.is_dir() else source, settings.ROOT)
        needed |= {path for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    return {path.relative_to(settings.ROOT).as_posix(): files.sha256(path) for path in sorted(needed)}


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
        for imported in _imports(file, root):
            waiting |= set(_files(imported.name, root)) - closed
    return closed


def foreign(module_file: Path, root: Path) -> list[ForeignImport]:
    """What a module, and what it imports below `root`, import of other packages than Python's own; in order of files.

    Raises:
        ModelCodeError: a file is not Python.
    """
    imports = []
    for file in sorted(closure(module_file, root)):
        for imported in _imports(file, root):
            package = imported.name.partition(".")[0]
            is_own = not package or package in sys.stdlib_module_names or any(_files(imported.name, root))
            if not is_own:
                imports.append(ForeignImport(package, file, imported.line, imported.is_optional))
    return imports


class ForeignImport(NamedTuple):
    """Where a file of the project imports a package that is none of its own."""

    package: str
    file: Path
    line: int
    is_optional: bool
    """Whether the code does without: it stands in a `try` that catches ImportError."""


class _Import(NamedTuple):
    name: str
    """Dotted; `from a import b` gives `a` and `a.b`, whether or not b is a module."""
    line: int
    is_optional: bool


def _imports(file: Path, root: Path) -> tuple[_Import, ...]:
    try:
        return _imports_of(file.read_bytes(), ".".join(file.relative_to(root).parent.parts))
    except SyntaxError as error:
        raise ModelCodeError(f"{file.relative_to(root)}, line {error.lineno}: {error.msg}") from None


@lru_cache(maxsize=1024)
def _imports_of(source: bytes, package: str) -> tuple[_Import, ...]:
    """By the text alone: a process asks for the same modules many times."""
    imports: list[_Import] = []
    for node, is_optional in _executed(ast.parse(source)):
        if isinstance(node, ast.Import):
            imports += [_Import(alias.name, node.lineno, is_optional) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
            imports += [_Import(name, node.lineno, is_optional) for name in names]
    return tuple(imports)


def _executed(node: ast.AST, is_optional: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """Every node that may run: all but the bodies of `if TYPE_CHECKING:`; and whether its ImportError is caught."""
    yield node, is_optional
    children = ast.iter_child_nodes(node)
    if isinstance(node, ast.If) and "TYPE_CHECKING" in (getattr(node.test, "id", ""), getattr(node.test, "attr", "")):
        children = iter(node.orelse)
    is_optional = is_optional or (isinstance(node, ast.Try) and any(map(_catches_import_error, node.handlers)))
    for child in children:
        yield from _executed(child, is_optional)


def _catches_import_error(handler: ast.ExceptHandler) -> bool:
    caught = ast.walk(handler.type) if handler.type else ()
    names = {getattr(node, "id", None) for node in caught}
    return handler.type is None or bool(names & {"ImportError", "ModuleNotFoundError", "Exception"})


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
