"""The map of var/: the page and the module name the same paths, nothing else does, and its version is checked."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from tasks.ground import paths, settings
from tests.conftest import REPOSITORY, Project

PAGE = (REPOSITORY / "docs" / "reference" / "state.md").read_text(encoding="utf-8")


OF_STAGES = {"memo", "memo/stat.json", "memo/measured/<>.json", "memo/alone/<>", "locks", "torn"}
"""What stages use is named by its owners: an edit of the map must redo no training."""


def documented() -> list[str]:
    """The paths of the page's second table, `<>` for each name in them."""
    table = PAGE.partition("## Every path")[2]
    return [re.sub(r"<\w+>", "<>", path) for path in re.findall(r"^\| `(.+?)` \|", table, re.MULTILINE)]


def test_the_page_has_every_path_of_the_module_once() -> None:
    """A path that is new or gone shows here."""
    functions = [each for name, each in vars(paths).items() if inspect.isfunction(each) and name[0] != "_"]
    named = [function(*("<>" for _ in inspect.signature(function).parameters)) for function in functions]
    below = [path.relative_to(settings.VAR).as_posix() for path in named]
    assert sorted(documented()) == sorted([*below, *OF_STAGES, "state.json"])


def test_the_page_says_of_every_folder_what_bounds_it() -> None:
    """Its first table has every top folder."""
    folders = {path.partition("/")[0] for path in documented()} - {"state.json"}
    overview = re.findall(r"^\| (`.+?`) \|", PAGE.partition("## Version")[0], re.MULTILINE)
    assert folders <= set(re.findall(r"`(\w+)`", " ".join(overview)))


def test_nothing_else_names_a_path_below_var() -> None:
    """Product code asks `paths`."""
    listed = subprocess.run(
        ["git", "ls-files", "tasks/*.py", "flows/*.py", "deployments/*.py"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    others = set(listed.stdout.splitlines()) - {"tasks/ground/paths.py", "tasks/ground/files.py"}
    assert [name for name in others if "settings.VAR /" in (REPOSITORY / name).read_text(encoding="utf-8")] == []


Begin = Callable[[], "subprocess.CompletedProcess[str]"]


@pytest.fixture
def begin(project: Project) -> Begin:
    """Begins a command in a project, as far as the settings."""
    code = "from tasks.ground import settings; settings.apply(); print('begun')"
    return lambda: project.run(sys.executable, "-c", code, check=False)


@pytest.mark.parametrize("before", [None, "", '{"version": 2}', '{"version": 3}'])
def test_state_of_this_build_or_an_older_one_is_stamped(project: Project, begin: Begin, before: str | None) -> None:
    """Version 1 is no file; a torn one counts as that."""
    path = project.root / "var" / "state.json"
    path.parent.mkdir(exist_ok=True)
    if before is not None:
        path.write_text(before)
    assert begin().stdout == "begun\n"
    assert json.loads(path.read_text()) == {"version": settings.STATE_VERSION}
    assert [each.name for each in path.parent.iterdir()] == ["state.json"]


def test_state_of_a_newer_build_is_refused(project: Project, begin: Begin) -> None:
    """Before anything is read, with what to do, and without a traceback."""
    path = project.root / "var" / "state.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text('{"version": 4}')
    done = begin()
    assert done.returncode == 1
    assert (
        "holds state of version 4, and this build reads versions up to 3: a newer build has worked here" in done.stderr
    )
    assert "Traceback" not in done.stderr
    assert path.read_text() == '{"version": 4}'
