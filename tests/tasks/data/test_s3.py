"""The landing zone and the DVC remote in buckets: the way of a partition from its delivery to a fresh clone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.data import delivery, git_sync, landing, versions, zones
from tasks.ground import settings
from tasks.ground.errors import SourceUnavailable
from tasks.ground.params import Git, Params

SECRET = "s3cr3t-of-nobody"
KEY = "AKIAOFNOBODY"


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty bucket; credentials and endpoint are in the environment, as a user would set them."""
    import s3fs

    given = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in {**given, "AWS_ENDPOINT_URL": s3_server, "DVC_NO_ANALYTICS": "1"}.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    store = s3fs.S3FileSystem()
    if store.exists("evergreen"):
        store.rm("evergreen", recursive=True)
    store.mkdir("evergreen")
    yield "s3://evergreen"
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def root(repository: Path, bucket: str) -> Path:
    """The project, with the bucket as its DVC remote; nothing is known to be in it."""
    (repository / "var" / "memo" / "pushed.json").unlink(missing_ok=True)  # the memo is shared by the tests
    (repository / ".dvc" / "config").write_text(
        f"[core]\n    autostage = false\n    remote = bucket\n['remote \"bucket\"']\n    url = {bucket}/dvc\n"
    )
    return repository


@pytest.fixture
def said(given: Params, bucket: str) -> Params:
    """Parameters whose landing zone and quarantine are in the bucket."""
    return given.model_copy(update={"landing": f"{bucket}/landing", "quarantine": f"{bucket}/quarantine"})


def dvc(root: Path, *arguments: str) -> None:
    """A dvc command."""
    subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=root, capture_output=True, check=True)


def git(root: Path, *arguments: str) -> None:
    """A git command."""
    identity = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
    subprocess.run(["git", *identity, *arguments], cwd=root, capture_output=True, check=True)


def ingest(said: Params, log: Callable[[str], object]) -> landing.Collected:
    """What the flow does, without Prefect."""
    collected = landing.collect(said, log)
    versions.make()
    versions.push()
    landing.clear(said, collected)
    return collected


def clone(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh clone, which is worked on from now on."""
    git(root, "add", "-A", "--", ".dvc", ".dvcignore", "data.dvc", "params.yaml")
    git(root, "commit", "-qm", "data")
    fresh = root.parent / "fresh"
    git(root, "clone", "-q", str(root), str(fresh))
    for name, path in {"ROOT": fresh, "BUILD": fresh / "build", "VAR": fresh / "var"}.items():
        monkeypatch.setattr(settings, name, path)
    return fresh


def test_a_partition_goes_from_the_bucket_to_a_fresh_clone(
    root: Path, said: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Delivered to s3://, taken in, its version pushed to s3://, pulled by a clone that has neither data nor cache."""
    heard: list[str] = []
    delivery.deliver(said, ["2013-01"], heard.append)
    assert len(ingest(said, heard.append).accepted) == 2
    assert landing.collect(said, heard.append) == landing.Collected()
    listing = versions.tree()
    fresh = clone(root, monkeypatch)
    assert not (fresh / "data").exists()
    assert versions.behind()
    assert versions.pull()
    assert versions.tree() == listing
    assert not versions.pull()


def test_a_second_push_asks_nobody(root: Path, said: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known to be in the bucket is not asked for again: the endpoint need not even answer."""
    delivery.deliver(said, ["2013-01"], lambda _: None)
    ingest(said, lambda _: None)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert not versions.push()


def test_the_endpoint_may_stand_in_dvcs_configuration(
    root: Path, said: Params, s3_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`dvc remote modify bucket endpointurl`: then the environment needs only the credentials."""
    import s3fs

    delivery.deliver(said, ["2013-01"], lambda _: None)
    collected = landing.collect(said, lambda _: None)
    versions.make()
    dvc(root, "remote", "modify", "bucket", "endpointurl", s3_server)
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    s3fs.S3FileSystem.clear_instance_cache()
    assert versions.push()
    assert collected.accepted
    fresh = clone(root, monkeypatch)
    assert versions.pull()
    assert len(list((fresh / "data").rglob("*.csv"))) == 2


def test_a_worker_commits_after_its_data_is_in_the_bucket(
    root: Path, said: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever clones the pushed commit can pull what it names."""
    git(root, "add", "-A", "--", ".dvc", ".dvcignore", "params.yaml")
    git(root, "commit", "-qm", "the beginning")
    git(tmp_path, "clone", "-q", "--bare", str(root), "origin.git")
    git(root, "remote", "add", "origin", str(tmp_path / "origin.git"))
    delivery.deliver(said, ["2013-01"], lambda _: None)
    ingest(said, lambda _: None)
    assert git_sync.publish(said.model_copy(update={"git": Git(commit=True)}), log=lambda _: None)
    git(tmp_path, "clone", "-q", "origin.git", "fresh")
    for name, path in {"ROOT": tmp_path / "fresh", "VAR": tmp_path / "fresh" / "var"}.items():
        monkeypatch.setattr(settings, name, path)
    assert versions.pull()
    assert sorted(versions.tree()) == ["flights/2013-01.csv", "weather/2013-01.csv"]


def test_credentials_are_nowhere_but_in_the_environment(
    root: Path, said: Params, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Not in a file of the project, not in what is said or logged, not in a repr; also when the store refuses."""
    import logging

    caplog.set_level(logging.DEBUG, logger="tasks")
    heard: list[str] = []
    delivery.deliver(said, ["2013-01"], heard.append)
    ingest(said, heard.append)
    wrong = said.model_copy(update={"landing": f"s3://{KEY}:{SECRET}@nowhere/landing"})
    with pytest.raises(SourceUnavailable) as caught:
        landing.collect(wrong, heard.append)
    shown = capfd.readouterr()
    told = [
        str(caught.value),
        repr(zones.landing(said.landing)),
        shown.out,
        shown.err,
        caplog.text,
        *heard,
    ]
    assert not [text for text in told if SECRET in text]
    files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    assert not [path for path in files if SECRET.encode() in path.read_bytes() or KEY.encode() in path.read_bytes()]
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == SECRET


@pytest.mark.parametrize("broken", ["http://127.0.0.1:9", "no such bucket"])
def test_a_store_that_does_not_answer_is_told_and_nothing_is_lost(
    root: Path, said: Params, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The version stays here and is pushed by the next run; the landed files stay where they are."""
    import s3fs

    delivery.deliver(said, ["2013-01"], lambda _: None)
    collected = landing.collect(said, lambda _: None)
    versions.make()
    with monkeypatch.context() as patch:
        if broken.startswith("http"):
            patch.setenv("AWS_ENDPOINT_URL", broken)
            patch.setenv("AWS_MAX_ATTEMPTS", "1")
        else:
            dvc(root, "remote", "modify", "bucket", "url", "s3://nowhere/dvc")
        s3fs.S3FileSystem.clear_instance_cache()
        with pytest.raises(SourceUnavailable, match="could not push the data version") as caught:
            versions.push()
        assert SECRET not in str(caught.value)
    s3fs.S3FileSystem.clear_instance_cache()
    dvc(root, "remote", "modify", "bucket", "url", "s3://evergreen/dvc")
    assert versions.push()
    landing.clear(said, collected)
    assert landing.collect(said, lambda _: None) == landing.Collected()
