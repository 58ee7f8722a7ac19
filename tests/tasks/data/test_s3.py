"""The landing zone and the DVC remote in buckets: the way of a partition from its delivery to a fresh clone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.data import delivery, git_sync, landing, versions, zones
from tasks.ground.errors import SourceUnavailable
from tasks.ground.params import Git, Params
from tests.conftest import Project
from tests.tasks.data.conftest import KEY, SECRET

WorkIn = Callable[[Path], Project]


def quiet(_: str) -> None:
    """Say nothing."""


@pytest.fixture
def root(repository: Path, bucket: str) -> Path:
    """The project, with the bucket as its DVC remote; nothing is known to be in it."""
    (repository / "var" / "memo" / "pushed.json").unlink(missing_ok=True)  # the memo is shared by the tests
    (repository / ".dvc" / "config").write_text(
        f"[core]\n    autostage = false\n    remote = bucket\n['remote \"bucket\"']\n    url = {bucket}/dvc\n"
    )
    return repository


@pytest.fixture
def config(given: Params, bucket: str) -> Params:
    """Parameters whose landing zone and quarantine are in the bucket."""
    return given.model_copy(update={"landing": f"{bucket}/landing", "quarantine": f"{bucket}/quarantine"})


def ingest(config: Params, log: Callable[[str], object] = quiet) -> landing.Collected:
    """What the flow does with what the upstream delivers, without Prefect."""
    delivery.deliver(config, ["2013-01"], log)
    collected = landing.collect(config, log)
    versions.make()
    versions.push()
    landing.clear(config, collected)
    return collected


def clone(root: Path, work_in: WorkIn) -> Path:
    """A fresh clone, which is worked on from now on."""
    Project(root).run("git", "add", "-A", "--", ".dvc", ".dvcignore", "data.dvc", "params.yaml")
    Project(root).run("git", "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qm", "data")
    Project(root).run("git", "clone", "-q", str(root), str(root.parent / "fresh"))
    return work_in(root.parent / "fresh").root


def test_a_partition_goes_from_the_bucket_to_a_fresh_clone(root: Path, config: Params, work_in: WorkIn) -> None:
    """Delivered to s3://, taken in, its version pushed to s3://, pulled by a clone that has neither data nor cache."""
    assert len(ingest(config).accepted) == 2
    assert landing.collect(config, quiet) == landing.Collected()
    listing = versions.tree()
    fresh = clone(root, work_in)
    assert not (fresh / "data").exists()
    assert versions.behind()
    assert versions.pull()
    assert versions.tree() == listing
    assert not versions.pull()


def test_a_second_push_asks_nobody(root: Path, config: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known to be in the bucket is not asked for again: the endpoint need not even answer."""
    ingest(config)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert not versions.push()


def test_the_endpoint_may_stand_in_dvcs_configuration(
    root: Path, config: Params, s3_server: str, work_in: WorkIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`dvc remote modify bucket endpointurl`: then the environment needs only the credentials."""
    import s3fs

    delivery.deliver(config, ["2013-01"], quiet)
    collected = landing.collect(config, quiet)
    versions.make()
    Project(root).dvc("remote", "modify", "bucket", "endpointurl", s3_server)
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    s3fs.S3FileSystem.clear_instance_cache()
    assert versions.push()
    assert collected.accepted
    fresh = clone(root, work_in)
    assert versions.pull()
    assert len(list((fresh / "data").rglob("*.csv"))) == 2


def test_a_worker_commits_after_its_data_is_in_the_bucket(
    root: Path, config: Params, tmp_path: Path, work_in: WorkIn
) -> None:
    """Whoever clones the pushed commit can pull what it names."""
    project = Project(root)
    project.run("git", "add", "-A", "--", ".dvc", ".dvcignore", "params.yaml")
    project.run("git", "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qm", "the beginning")
    project.run("git", "clone", "-q", "--bare", str(root), str(tmp_path / "origin.git"))
    project.run("git", "remote", "add", "origin", str(tmp_path / "origin.git"))
    ingest(config)
    assert git_sync.publish(config.model_copy(update={"git": Git(commit=True)}), log=quiet)
    project.run("git", "clone", "-q", str(tmp_path / "origin.git"), str(tmp_path / "fresh"))
    work_in(tmp_path / "fresh")
    assert versions.pull()
    assert sorted(versions.tree()) == ["flights/2013-01.csv", "weather/2013-01.csv"]


def test_credentials_are_nowhere_but_in_the_environment(
    root: Path, config: Params, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Not in a file of the project, not in what is said or logged, not in a repr; also when the store refuses."""
    import logging

    caplog.set_level(logging.DEBUG, logger="tasks")
    heard: list[str] = []
    ingest(config, heard.append)
    wrong = config.model_copy(update={"landing": f"s3://{KEY}:{SECRET}@nowhere/landing"})
    with pytest.raises(SourceUnavailable) as caught:
        landing.collect(wrong, heard.append)
    printed = capfd.readouterr()
    texts = [str(caught.value), repr(zones.landing(config.landing)), printed.out, printed.err, caplog.text, *heard]
    assert not [text for text in texts if SECRET in text]
    files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    assert not [path for path in files if SECRET.encode() in path.read_bytes() or KEY.encode() in path.read_bytes()]
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == SECRET


@pytest.mark.parametrize("broken", ["http://127.0.0.1:9", "no such bucket"])
def test_a_store_that_does_not_answer_is_told_and_nothing_is_lost(
    root: Path, config: Params, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The version stays here and is pushed by the next run; the landed files stay where they are."""
    import s3fs

    delivery.deliver(config, ["2013-01"], quiet)
    collected = landing.collect(config, quiet)
    versions.make()
    with monkeypatch.context() as patch:
        if broken.startswith("http"):
            patch.setenv("AWS_ENDPOINT_URL", broken)
            patch.setenv("AWS_MAX_ATTEMPTS", "1")
        else:
            Project(root).dvc("remote", "modify", "bucket", "url", "s3://nowhere/dvc")
        s3fs.S3FileSystem.clear_instance_cache()
        with pytest.raises(SourceUnavailable, match="could not push the data version") as caught:
            versions.push()
        assert SECRET not in str(caught.value)
    s3fs.S3FileSystem.clear_instance_cache()
    Project(root).dvc("remote", "modify", "bucket", "url", "s3://evergreen/dvc")
    assert versions.push()
    landing.clear(config, collected)
    assert landing.collect(config, quiet) == landing.Collected()
