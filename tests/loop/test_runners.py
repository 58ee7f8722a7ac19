"""Three runners, one graph: `dvc repro`, the flow, and a clone that pulls end with the same hashes."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from tests.conftest import Project
from tests.loop import invariants
from tests.loop.platform import Platform

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


def end(root: Path) -> tuple[object, dict[str, str]]:
    """What dvc.lock says, and the SHA-256 of everything in build/."""
    return yaml.safe_load((root / "dvc.lock").read_text()), invariants.tree(root / "build")


def delivered(shared: Platform, name: str) -> Path:
    """A project with a data version of two months, and nothing made from it."""
    root = shared.project(name)
    for month in (1, 2):
        path = root / "var" / "landing" / "readings" / f"2013-{month:02d}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(shared.content(month))
    assert shared.run(root, "flows", "ingest") == 0, told(root)
    return root


def told(root: Path) -> str:
    """The log of the project's processes."""
    log = Path(f"{root}.log")
    return log.read_text() if log.exists() else ""


def at_work(root: Path) -> list[str]:
    """The stages that ran, by the log of the project's processes."""
    return [line for line in told(root).splitlines() if " ran " in line and "@tiny" in line]


def runs(root: Path) -> list[str]:
    """The MLflow runs, whatever their state."""
    with closing(sqlite3.connect(root / "var/mlflow/mlflow.db")) as database:
        return [status for (status,) in database.execute("select status from runs")]


def dvc(root: Path, *arguments: str) -> str:
    """What DVC says, in a process of its own, as a person has it who typed `make shell`."""
    code = "import sys; from tasks.ground import settings; settings.apply(); from dvc.cli import main; sys.exit(main())"
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(root), "MPLBACKEND": "Agg"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def by_dvc(shared: Platform) -> Path:
    """A project brought up to date by `dvc repro`."""
    root = delivered(shared, "by-dvc")
    dvc(root, "repro", "package@tiny")
    return root


@pytest.fixture(scope="module")
def by_flow(shared: Platform) -> Path:
    """The same project, brought up to date by the flow, with the pictures drawn."""
    root = delivered(shared, "by-flow")
    assert shared.run(root, "flows", "train", "tiny", drawn=True) == 0, told(root)
    return root


def test_the_flow_and_dvc_repro_end_with_the_same_hashes(by_dvc: Path, by_flow: Path) -> None:
    """dvc.lock and every byte in build/ are the same, whoever ran the stages."""
    assert end(by_dvc) == end(by_flow)
    assert (by_dvc / "data.dvc").read_text() == (by_flow / "data.dvc").read_text()


def test_after_dvc_repro_the_flow_runs_no_stage(shared: Platform, by_dvc: Path) -> None:
    """It judges and promotes what is there; the candidate has its one run already."""
    before = end(by_dvc)
    assert shared.run(by_dvc, "flows", "train", "tiny", drawn=True) == 0, told(by_dvc)
    assert at_work(by_dvc) == []
    assert runs(by_dvc) == ["FINISHED"]
    assert end(by_dvc) == before


def test_after_the_flow_dvc_repro_runs_no_stage(by_flow: Path) -> None:
    """The same books."""
    before = end(by_flow)
    said = dvc(by_flow, "repro", "package@tiny")
    assert "up to date" in said
    assert "Running stage" not in said
    assert end(by_flow) == before


def test_a_clone_that_pulls_has_nothing_to_run(shared: Platform, by_flow: Path) -> None:
    """Git brings dvc.lock and data.dvc, `dvc pull` what they name; DVC and the flow find nothing to do."""
    dvc(by_flow, "push")
    Project(by_flow).commit()
    clone = shared.base / "clone"
    subprocess.run(["git", "clone", "-q", by_flow, clone], check=True)
    (clone / "var").mkdir()
    (clone / "var" / "remote").symlink_to(by_flow / "var" / "remote")
    dvc(clone, "pull")
    assert end(clone) == end(by_flow)
    assert invariants.data(clone) == invariants.data(by_flow)
    assert "Running stage" not in dvc(clone, "repro", "package@tiny")
    assert shared.run(clone, "flows", "train", "tiny", drawn=True) == 0, told(clone)
    assert at_work(clone) == []
    assert end(clone) == end(by_flow)
    assert Project(clone).run("git", "status", "--porcelain").stdout == ""


def test_eight_at_once_end_without_a_lock_error(shared: Platform, by_dvc: Path) -> None:
    """Flows, `dvc repro` and the bare graph at the same time: each stage runs once, and all end well."""
    root = delivered(shared, "eight")
    acts = [("flows", "train", "tiny"), ("dvc", "--wait-for-lock", "repro", "package@tiny"), ("reproduce", "tiny")]
    started = [shared.start(root, *acts[n % 3], drawn=True) for n in range(8)]
    assert [one.wait() for one in started] == [0] * 8, told(root)
    assert "Unable to acquire lock" not in told(root)
    assert end(root) == end(by_dvc)
    ran = re.findall(r"(\w+@\w+) +ran ", told(root))
    assert len(ran) == len(set(ran)), ran
    assert runs(root) == ["FINISHED"]
