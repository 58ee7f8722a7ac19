"""docs/how-to/back-up-and-move.md, typed: the commands of the page, one after the other, in a small project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tasks import steps
from tasks.ground import files, settings
from tasks.release import comparison
from tasks.release.package import package
from tasks.release.registry import promotions, registry, tracking, verdict_records
from tasks.training import dvc_graph
from tests.conftest import BIN, REPOSITORY, Project

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

PAGE = REPOSITORY / "docs" / "how-to" / "back-up-and-move.md"
MODEL = "tiny"


def commands() -> str:
    """Every line of the page that begins with a prompt."""
    return "\n".join(re.findall(r"^\$ (.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE))


def release(champion: int) -> None:
    """What the flow does without its history: a candidate, tracked, judged and promoted."""
    dvc_graph.reproduce(MODEL, steps.run)
    build = settings.BUILD / MODEL
    package.ensure_bento(MODEL)
    run = tracking.track(MODEL, build / "release", build, {"latency_ms": 1.0, "size_mb": 0.1})
    version = registry.register(MODEL, run.candidate)
    verdict = comparison.judge_candidate(MODEL)
    verdict_records.record(MODEL, version.number, verdict)
    assert promotions.promote(MODEL, version.number, verdict.id).number == champion, verdict.to_text()


def test_the_page_is_typed_and_the_copy_works_by_itself(small: Project) -> None:
    """Only `.venv` is not installed anew: a link to the one of the tests is laid where `make setup` would."""
    for name in ("Makefile", "activate"):
        shutil.copy2(REPOSITORY / name, small.root)
    os.utime(small.root / "requirements.lock", (0, 0))  # older than what it was installed into
    (small.root / ".venv").symlink_to(BIN.parent)
    small.edit("params.yaml", "rule: better", "rule: not_worse")
    small.edit("params.yaml", "champion_age: 1", "champion_age: 0")
    release(champion=1)
    small.edit("params.yaml", "params: {C: 1.0}", "params: {C: 2.0}")
    release(champion=2)
    files.remove(settings.VAR / "champions")
    before = files.tree(settings.VAR / "mlflow" / "artifacts")

    script = commands().replace("flight_delay", MODEL).replace("make setup", f"ln -s {BIN.parent} .venv\nmake setup")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("EVERGREEN", "MLFLOW", "BENTOML", "PYTHONPATH"))}
    typed = subprocess.run(
        ["bash", "-ec", script], cwd=small.root, env=kept, capture_output=True, text=True, timeout=240, check=False
    )
    said = typed.stdout + typed.stderr
    assert typed.returncode == 0, said
    assert "version 2 (champion)" in said
    assert "this project was moved or copied" in said
    assert "version 1 (candidate" in said
    assert "is champion again" in said
    assert files.tree(settings.VAR / "mlflow" / "artifacts") == before
    restored = small.root.parent / "evergreen-restored"
    assert (restored / "data" / "readings" / "2013-01.csv").exists()


@pytest.mark.parametrize("shebang", ["#!{}/bin/python3", '#!/bin/sh\n\'\'\'exec\' "{}/bin/python" "$0" "$@"'])
def test_an_environment_that_was_made_in_another_folder_is_made_again(tmp_path: Path, shebang: str) -> None:
    """As pip and uv write commands, with the old folder there or gone; one that was made here, or is a link, stays."""
    shutil.copy2(REPOSITORY / "Makefile", tmp_path)
    (tmp_path / "requirements.lock").write_text("")
    os.utime(tmp_path / "requirements.lock", (0, 0))
    old, here = tmp_path / "my old" / ".venv", tmp_path / ".venv"
    for venv in (old, here):
        (venv / "bin").mkdir(parents=True)
        (venv / ".ready").touch()

    def would(names: Path) -> str:
        (here / "bin" / "dvc").write_text(shebang.format(names) + "\n")
        done = subprocess.run(["make", "-n", "setup"], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout

    assert "it is made again here" in would(old)
    assert "rm -rf .venv" in would(tmp_path / "gone" / ".venv")
    assert "Nothing to be done" in would(here)
    shutil.move(here, tmp_path / "shared")
    here.symlink_to(tmp_path / "shared")
    assert "Nothing to be done" in would(tmp_path / "shared")
