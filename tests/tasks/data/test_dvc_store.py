"""DVC's cache and remote: what stages made goes to other clones whole, or is made again there."""

from __future__ import annotations

import logging
import shutil
import subprocess
from pathlib import Path

import pytest

from tasks.data import dvc_store
from tests.tasks.data.test_versions import damage

STAGES = """stages:
  package:
    foreach: [tiny]
    do:
      cmd: mkdir -p made && echo ${item} > made/a && echo b > made/b && echo c > single
      outs: [made, single]
"""


@pytest.fixture
def remote(repository: Path) -> Path:
    """The remote of a project whose one stage ran, with what it made."""
    (repository / "dvc.yaml").write_text(STAGES)
    subprocess.run(["dvc", "repro", "-q"], cwd=repository, check=True)
    dvc_store.push_made()
    return repository / "var/remote"


def objects(remote: Path) -> dict[str, str]:
    """What a lock names in the remote, by its content."""
    lock = (remote.parents[1] / "dvc.lock").read_text()
    names = dvc_store._NAMED.findall(lock)
    names += [part for name in names if name.endswith(".dir") for part in dvc_store.listing(name).values()]
    return {name: (remote / dvc_store._object(name)).read_text() for name in names}


def test_what_came_damaged_is_not_kept(remote: Path, repository: Path, caplog: pytest.LogCaptureFixture) -> None:
    """DVC would take a file of the right name for the right one; here it is told, and the stage runs again."""
    kept = objects(remote)
    (name,) = [name for name, content in kept.items() if content == "c\n"]
    damage(remote / dvc_store._object(name))
    shutil.rmtree(repository / ".dvc/cache")
    with caplog.at_level(logging.WARNING, "evergreen"):
        dvc_store.fetch_made("tiny")
    assert "tiny: 1 file of what another worker made came damaged: it is made again" in caplog.text
    assert {each for each in kept if dvc_store.is_cached(each)} == kept.keys() - {name}


@pytest.mark.parametrize("content", ["tiny\n", "b\n", "c\n", "[{"])
def test_half_a_file_of_what_was_made_is_pushed_again(remote: Path, content: str) -> None:
    """A push that was killed had left it; a folder's listing that lists such a file is no promise."""
    kept = objects(remote)
    name = next(each for each, text in kept.items() if text.startswith(content))
    damage(remote / dvc_store._object(name), "")
    dvc_store.push_made()
    assert objects(remote) == kept


def test_what_another_process_is_writing_into_the_cache_is_no_object(repository: Path) -> None:
    """It would be taken for damaged, and taken away from it."""
    writing = dvc_store.path_of("ab" + "0" * 30).with_name(".half.tmp")
    writing.parent.mkdir(parents=True)
    writing.write_text("ha")
    assert dvc_store._cached_objects() == set()
