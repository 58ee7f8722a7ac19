"""What the linters cannot hold."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import LISTED_FILES, REPOSITORY

TRACKED = subprocess.run(LISTED_FILES, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.parametrize(
    "pattern",
    [
        r"https?://[^\s\"'/]*/(simple|pypi|artifactory|nexus)\b",
        r"\b(pypi|pythonhosted|npmjs|anaconda|conda|pytorch)\.(org|com|io)\b|\b(docker|ghcr|quay|gcr)\.io\b",
        r"--(extra-)?index-url|--find-links|--trusted-host",
        r"(?<![\w./$}~])/(home|root|Users|work)/[a-z]",
    ],
)
def test_no_file_names_a_package_index_or_a_place_on_somebodys_machine(pattern: str) -> None:
    """What is committed works on every machine, and asks the index that the machine is set to ask."""
    this = Path(__file__).relative_to(REPOSITORY).as_posix()
    found = [
        f"{path}:{number}"
        for path in TRACKED
        if path != this and (REPOSITORY / path).is_file()
        for number, line in enumerate((REPOSITORY / path).read_bytes().splitlines(), 1)
        if re.search(pattern.encode(), line)
    ]
    assert not found


def test_every_test_is_a_sentence() -> None:
    """A test's docstring says the behaviour."""
    silent = []
    for path in REPOSITORY.glob("tests/**/test_*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        tests = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
        silent += [f"{path.name}: {test.name}" for test in tests if not ast.get_docstring(test)]
    assert not silent
