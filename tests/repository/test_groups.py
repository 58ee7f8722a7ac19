"""Optional groups of packages: what `make setup WITH=…` installs, and what the lock knows of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tasks.ground import locked_packages
from tests.conftest import REPOSITORY

GROUPS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
OPTIONAL = sorted(set(GROUPS) - {"dev"})


def pins(path: str) -> dict[str, list[locked_packages.Pin]]:
    """What a file of the lock pins."""
    return locked_packages.read_lock((REPOSITORY / path).read_text(encoding="utf-8"))


@pytest.mark.parametrize("group", OPTIONAL)
def test_a_group_is_locked_beside_the_base(group: str) -> None:
    """Each of its packages has a pin that fits pyproject.toml, and no package has two files that could disagree."""
    added = pins(f"locks/{group}.lock")
    unhashed = REPOSITORY / "locks" / f"{group}.txt"
    added |= pins(f"locks/{unhashed.name}") if unhashed.exists() else {}
    for wanted in map(Requirement, GROUPS[group]):
        assert all(Version(pin.version.partition("+")[0]) in wanted.specifier for pin in added[wanted.name])
    others = {name for other in OPTIONAL if other != group for name in pins(f"locks/{other}.lock")}
    assert not added.keys() & ({*pins("requirements.lock")} | others)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with Makefile and locks, and an environment that `make setup WITH=lightgbm` left."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy2(REPOSITORY / name, tmp_path)
    shutil.copytree(REPOSITORY / "locks", tmp_path / "locks")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".ready").write_text("lightgbm\n")
    return tmp_path


def would(project: Path, *arguments: str) -> str:
    """What `make setup` would do."""
    done = subprocess.run(["make", "-n", "setup", *arguments], cwd=project, capture_output=True, text=True, check=True)
    return done.stdout


def test_the_groups_that_were_installed_are_remembered(project: Path) -> None:
    """Nothing to do for the same; another is added, a new lock of one of them installs; `WITH=` takes all away."""
    assert "Nothing to be done" in would(project)
    assert "Nothing to be done" in would(project, "WITH=lightgbm")
    assert "hashes requirements.lock locks/lightgbm.lock locks/xgboost.lock" in would(project, "WITH=xgboost")
    assert "hashes requirements.lock \\" in would(project, "WITH=")
    with_torch = would(project, "WITH=torch")
    assert "hashes requirements.lock locks/lightgbm.lock locks/torch.lock" in with_torch
    assert "--no-deps -r locks/torch.txt" in with_torch
    later = (project / ".venv" / ".ready").stat().st_mtime + 9
    os.utime(project / "locks" / "xgboost.lock", (later, later))
    assert "Nothing to be done" in would(project)
    os.utime(project / "locks" / "lightgbm.lock", (later, later))
    assert "hashes requirements.lock locks/lightgbm.lock \\" in would(project)


def test_a_group_that_does_not_exist_is_named(project: Path) -> None:
    """With those that do; nothing is installed."""
    done = subprocess.run(
        ["make", "setup", "WITH=lightgbm lihgtgbm"], cwd=project, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert f"there is no group lihgtgbm: WITH takes {' '.join(o for o in GROUPS if o != 'dev')}\n" in done.stdout
