"""The committed data.dvc and dvc.lock are the state that `make run` ends in: here, as far as it shows without a run."""

from __future__ import annotations

import pytest
import yaml

from tasks.ground import files, settings

LOCK = yaml.safe_load((settings.ROOT / "dvc.lock").read_text())["stages"]
DATA = yaml.safe_load((settings.ROOT / "data.dvc").read_text())["outs"][0]


@pytest.mark.parametrize("stage", list(LOCK))
def test_what_was_made_was_made_from_this_code(stage: str) -> None:
    """A file that a stage depends on is the one dvc.lock names; otherwise `make run`, and commit both."""
    stale = [
        dep["path"]
        for dep in LOCK[stage]["deps"]
        if (path := settings.ROOT / dep["path"]).is_file() and not dep["path"].startswith("build/")
        if files.md5(path) != dep["md5"]
    ]
    assert not stale


def test_it_was_made_from_the_committed_data() -> None:
    """dvc.lock and data.dvc speak of one data version."""
    used = {dep["md5"] for stage in LOCK.values() for dep in stage["deps"] if dep["path"] == "data"}
    assert used == {DATA["md5"]}


def test_every_stage_is_in_the_lock() -> None:
    """A stage that was never run has made nothing."""
    stages = yaml.safe_load((settings.ROOT / "dvc.yaml").read_text())["stages"]
    assert {name.partition("@")[0] for name in LOCK} == set(stages)
