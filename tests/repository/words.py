"""Names that say too little, and names that say two things; `python -m tests.repository.words [folder]` lists them."""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import REPOSITORY

VAGUE = frozenset({"said", "one", "there", "found", "told", "held", "known"})
"""Nobody who reads one of these knows what it holds."""

WIDEST = 3
"""So many lines a vague name may live: longer than that, a reader has to remember what it stands for."""

ROOMS = ("tasks", "flows", "deployments", "models")

Scope = ast.FunctionDef | ast.AsyncFunctionDef | ast.Module | ast.ClassDef


def modules(*folders: str) -> list[Path]:
    """Every module of the product, or of some folders."""
    return sorted(path for folder in folders or ROOMS for path in (REPOSITORY / folder).rglob("*.py"))


def vague_names(path: Path) -> Iterator[str]:
    """`file:line: name` for each vague name that lives longer than a glance."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for scope in ast.walk(tree):
        if isinstance(scope, Scope):
            for name, lines in sorted(_lives(scope).items()):
                if max(lines) - min(lines) >= WIDEST:
                    yield f"{path.relative_to(REPOSITORY)}:{min(lines)}: {name}, {max(lines) - min(lines) + 1} lines"


def _lives(scope: Scope) -> dict[str, list[int]]:
    """Vague name → the lines of a scope on which it is bound or read, where the scope binds it."""
    bound: set[str] = set()
    lines: dict[str, list[int]] = defaultdict(list)
    for node in _own(scope):
        if isinstance(node, ast.arg):
            name, binds = node.arg, True
        elif isinstance(node, ast.Name):
            name, binds = node.id, isinstance(node.ctx, ast.Store)
        else:
            continue
        if name in VAGUE:
            lines[name].append(node.lineno)
            bound |= {name} if binds else set()
    return {name: places for name, places in lines.items() if name in bound}


def _own(scope: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a scope, without those of the scopes in it; comprehensions and lambdas are part of it."""
    for child in ast.iter_child_nodes(scope):
        yield child
        if not isinstance(child, Scope):
            yield from _own(child)


def classes() -> dict[str, list[str]]:
    """Class name → the modules that define one of that name."""
    places: dict[str, list[str]] = defaultdict(list)
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places[node.name.lstrip("_")].append(path.relative_to(REPOSITORY).as_posix())
    return dict(places)


def shared_class_names() -> list[str]:
    """`Name: module, module` for each class name that means two things."""
    return [f"{name}: {', '.join(places)}" for name, places in sorted(classes().items()) if len(places) > 1]


if __name__ == "__main__":
    vague = [line for path in modules(*sys.argv[1:]) for line in vague_names(path)]
    print(*vague, f"{len(vague)} vague names", sep="\n")
    if not sys.argv[1:]:
        print(*shared_class_names(), sep="\n")
