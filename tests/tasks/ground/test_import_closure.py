"""Which files a module imports."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.ground import files, import_closure, settings
from tasks.ground.errors import ModelCodeError


def project(root: Path, **sources: str) -> Path:
    """Write modules given as a__b="…" for a/b.py; packages get an __init__.py."""
    for name, text in sources.items():
        path = root / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        for folder in path.relative_to(root).parents[:-1]:
            (root / folder / "__init__.py").touch()
        path.write_text(text)
    return root


def found(root: Path, start: str) -> list[str]:
    """The closure of a file, as sorted relative paths."""
    return sorted(path.relative_to(root).as_posix() for path in import_closure.closure(root / start, root))


def test_imports_are_followed_through_modules_and_packages(tmp_path):
    """A file that is imported by an imported file counts, and so does the __init__ of every package on the way."""
    root = project(tmp_path, main="import a.b", a__b="from c import d", c__d="x = 1", other="y = 2")
    assert found(root, "main.py") == ["a/__init__.py", "a/b.py", "c/__init__.py", "c/d.py", "main.py"]


def test_an_import_inside_a_function_counts(tmp_path):
    """Imports are put into functions to be late, not to be hidden."""
    root = project(tmp_path, main="def f():\n    from a import g\n    return g()", a="def g(): ...")
    assert found(root, "main.py") == ["a.py", "main.py"]


def test_an_import_for_the_type_checker_does_not_count(tmp_path):
    """What stands below `if TYPE_CHECKING:` never runs; what stands below its else does."""
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import a\nelse:\n    import b"
    root = project(tmp_path, main=text, a="", b="")
    assert found(root, "main.py") == ["b.py", "main.py"]


def test_relative_imports_are_resolved(tmp_path):
    """`from . import x` and `from ..y import z` mean the same as their absolute names."""
    root = project(tmp_path, p__q__main="from . import x\nfrom ..y import z", p__q__x="", p__y="z = 1")
    assert found(root, "p/q/main.py") == ["p/__init__.py", "p/q/__init__.py", "p/q/main.py", "p/q/x.py", "p/y.py"]


def test_installed_packages_are_not_files_of_the_project(tmp_path):
    """The standard library and what is installed are pinned by the lock, not by content."""
    root = project(tmp_path, main="import json, numpy.linalg\nfrom pandas import DataFrame")
    assert found(root, "main.py") == ["main.py"]


def test_circles_end(tmp_path):
    """Two modules that import each other are both found."""
    assert found(project(tmp_path, a="import b", b="import a"), "a.py") == ["a.py", "b.py"]


def test_a_file_that_is_not_python_is_named(tmp_path):
    """The error says which file, and the line."""
    root = project(tmp_path, main="import a", a="x = 1\ndef broken(")
    with pytest.raises(ModelCodeError, match=r"a\.py, line 2"):
        import_closure.closure(root / "main.py", root)


def test_code_is_known_by_the_hashes_of_all_that_it_is_made_of(tmp_path, monkeypatch):
    """A table beside a package's code counts, byte code does not; what nobody imports does not either."""
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    project(tmp_path, step="import a", a="", b="", other="")
    for name, text in {"__init__.py": "import b", "table.csv": "1", "__pycache__/b.pyc": ""}.items():
        files.write_text(tmp_path / "p" / name, text)
    hashes = import_closure.hashes("step.py", "p")
    assert list(hashes) == ["a.py", "b.py", "p/__init__.py", "p/table.csv", "step.py"]
    assert hashes["p/table.csv"] == files.sha256(tmp_path / "p" / "table.csv")
