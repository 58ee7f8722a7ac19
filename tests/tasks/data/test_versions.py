"""Data versions, against real DVC in a git repository of its own."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from models import upstream
from tasks.data import delivery, dvc_store, landing, versions
from tasks.ground import dvc_files, files
from tasks.ground.errors import DataMissing, DataVersionDiffers, SourceUnavailable
from tasks.ground.params import Params
from tests.conftest import REPOSITORY, Project
from tests.tasks.data.conftest import Killed, Put, write

pytestmark = [
    pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning"),  # Great Expectations imports it
    pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning"),  # DVC uses it
]


@pytest.fixture
def small(repository: Path) -> Put:
    """Put a small file into data/, as ingest would."""
    return lambda name, content: write(repository / "data" / name, content)


@pytest.fixture
def pushed(repository: Path, small: Put) -> Path:
    """The repository with a version of one partition, which the remote has."""
    small("flights/2013-01.csv", "a")
    versions.make()
    versions.push()
    return repository


def forget(repository: Path, *folders: str) -> None:
    """Remove data/ and DVC's cache, or other folders."""
    for folder in folders or ("data", ".dvc/cache"):
        shutil.rmtree(repository / folder)


def damage(path: Path, content: str = "damaged") -> None:
    """Write something else into a file of DVC; it stays read-only, for which DVC trusts it."""
    path.chmod(0o644)
    path.write_text(content)
    path.chmod(0o444)


def quiet(_: str) -> None:
    """Say nothing."""


def test_the_hash_of_a_folder_is_the_one_dvc_gives(repository: Path, small: Put) -> None:
    """Names that sort differently by part and by path, other alphabets, empty files: the same hash as `dvc add`."""
    for name in ("a/b.csv", "a-b.csv", "a.csv", "a/ä ü.csv", "Z/1.parquet", "z/empty.csv"):
        small(name, "" if "empty" in name else name)
    small("a/.half.csv.12.tmp", "not counted")
    (repository / "data/a/__pycache__").mkdir()
    small("a/__pycache__/x.pyc", "not counted")
    Project(repository).dvc("add", "data")
    assert versions.current() == versions.dir_hash(versions.tree())
    assert versions.present()


def test_a_version_is_made_once_and_dvc_agrees(repository: Path, small: Put) -> None:
    """Make gives the new version, then None; DVC has nothing to add; another file makes another version."""
    assert versions.current() is None
    assert versions.make() is None
    small("flights/2013-01.csv", "a")
    first = versions.make()
    assert first == versions.current()
    assert str(first).endswith(".dir")
    before = (repository / "data.dvc").read_bytes()
    assert versions.make() is None
    assert "up to date" in Project(repository).dvc("status")
    assert (repository / "data.dvc").read_bytes() == before
    small("flights/2013-02.csv", "b")
    assert versions.make() not in (None, first)


def test_dvc_is_not_imported_when_nothing_changed(pushed: Path) -> None:
    """In a fresh process, make and push find out that there is nothing to do without DVC."""
    code = (
        "import sys; from tasks.data import versions as v; print(v.make(), v.push(), v.pull(), v.present(),"
        "[m for m in ('dvc', 'pandas', 'great_expectations', 'fsspec') if m in sys.modules])"
    )
    environment = {"EVERGREEN_ROOT": str(pushed), "PYTHONPATH": str(REPOSITORY)}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "None False False True []"


def test_a_version_only_grows(repository: Path, small: Put) -> None:
    """Files of the version that are not here are not dropped from the next one: the error says how to get them."""
    small("flights/2013-01.csv", "a")
    small("flights/2013-02.csv", "b")
    versions.make()
    before = (repository / "data.dvc").read_bytes()
    (repository / "data/flights/2013-01.csv").unlink()
    small("flights/2013-02.csv", "B")
    small("flights/2013-03.csv", "c")
    with pytest.raises(
        DataMissing, match=r"missing: flights/2013-01.csv; changed: flights/2013-02.csv.*evergreen data"
    ):
        versions.make()
    assert (repository / "data.dvc").read_bytes() == before


def test_a_version_that_nobody_has_is_not_forgotten(repository: Path, small: Put) -> None:
    """A worker with an empty cache and an empty remote does not make a version of the newest partition alone."""
    small("flights/2013-01.csv", "a")
    versions.make()
    small("flights/2013-02.csv", "b")
    named = versions.make()
    shutil.rmtree(repository / ".dvc/cache")
    (repository / "data/flights/2013-02.csv").unlink()
    assert versions.behind()
    with pytest.raises(DataMissing, match=r"cannot be told.*evergreen data.*remove data.dvc"):
        versions.make()
    assert versions.current() == named


def test_pushed_is_said_only_while_it_is_true(pushed: Path) -> None:
    """A second push is nothing; a remote that lost its folder or one file of it is pushed to again."""
    assert not versions.push()
    remote = pushed / "var/remote"
    listing = files.tree(remote)
    shutil.rmtree(remote)
    assert versions.push()
    assert files.tree(remote) == listing
    (partition,) = [path for path in remote.rglob("*") if path.is_file() and path.suffix != ".dir"]
    partition.chmod(0o644)
    partition.unlink()
    assert versions.push()
    assert files.tree(remote) == listing


@pytest.mark.parametrize("listing", [True, False])
def test_half_a_file_in_the_remote_is_pushed_again(pushed: Path, listing: bool) -> None:
    """DVC writes there directly: a kill leaves the beginning of a file, which it would take for the file."""
    remote = pushed / "var/remote"
    whole = files.tree(remote)
    (half,) = [path for path in remote.rglob("*") if path.is_file() and (path.suffix == ".dir") == listing]
    damage(half, "")
    assert versions.push()
    assert files.tree(remote) == whole


def test_pull_brings_the_version_back(pushed: Path) -> None:
    """Without data/ and without a cache, the remote gives the same files; again is nothing to do."""
    forget(pushed)
    assert versions.pull()
    assert (pushed / "data/flights/2013-01.csv").read_text() == "a"
    assert not versions.pull()


def test_a_pull_does_not_throw_away_what_is_in_no_version(pushed: Path, small: Put) -> None:
    """A partition that ingest took in and no version holds yet survives a pull, which says so."""
    (pushed / "data/flights/2013-01.csv").unlink()
    newcomer = small("flights/2013-02.csv", "b")
    with pytest.raises(DataVersionDiffers, match=r"does not: flights/2013-02.csv"):
        versions.pull()
    assert newcomer.read_text() == "b"


def test_a_pull_of_an_older_version_takes_out_what_the_newer_one_keeps(pushed: Path, small: Put) -> None:
    """After `git checkout` of an older data.dvc, data/ follows: nothing is asked, and nothing is lost."""
    older = (pushed / "data.dvc").read_bytes()
    small("flights/2013-02.csv", "b")
    newer = versions.make()
    text = (pushed / "data.dvc").read_bytes()
    versions.push()
    (pushed / "data.dvc").write_bytes(older)
    assert versions.pull()
    assert list(versions.tree()) == ["flights/2013-01.csv"]
    (pushed / "data.dvc").write_bytes(text)
    assert versions.pull()
    assert versions.current() == newer
    assert versions.present()


def test_a_remote_that_cannot_be_reached_is_said(repository: Path, small: Put) -> None:
    """A folder that cannot be made: the error names what was tried; the marker does not claim that it was pushed."""
    small("flights/2013-01.csv", "a")
    versions.make()
    (repository / "var/remote").write_text("a file where the folder should be")
    for _ in range(2):
        with pytest.raises(SourceUnavailable, match="could not push the data version"):
            versions.push()


NAMES_NONE = r"data\.dvc names no data version.*git checkout HEAD -- data\.dvc"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("outs: []\n", NAMES_NONE),
        ("", NAMES_NONE),
        ("outs:\n- path: data\n", NAMES_NONE),
        (
            "outs:\n<<<<<<< HEAD\n- md5: a\n=======\n- md5: b\n>>>>>>> other\n",
            "both sides of a merge: `evergreen merge`",
        ),
    ],
)
def test_a_data_dvc_that_names_nothing_is_said(text: str, message: str, repository: Path) -> None:
    """An empty file is not «no version»: the error says what to do. Of a merge, Git would refuse a checkout."""
    (repository / "data.dvc").write_text(text)
    with pytest.raises(DataMissing, match=message):
        versions.current()


# ── make data ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def made(repository: Path, put: Put) -> str:
    """A repository whose data.dvc names two months, as a fresh clone sees it: no data/, no cache, an empty remote."""
    for partition in ("2013-01", "2013-02"):
        for dataset in upstream.DATASETS:
            put(dataset, partition)
    version = versions.make()
    forget(repository)
    assert version is not None
    return version


@pytest.fixture
def upstream_gives(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str, str, bytes], bytes]], None]:
    """Has the upstream give another content, made of dataset, partition and what it gave before."""

    def upstream_gives(change: Callable[[str, str, bytes], bytes]) -> None:
        def deliver(dataset: str, name: str) -> tuple[str, bytes]:
            return f"{name}.csv", change(dataset, name, upstream.deliver(dataset, name)[1])

        changed = SimpleNamespace(partitions=upstream.partitions, deliver=deliver)
        monkeypatch.setattr(delivery, "upstream", lambda _: changed)

    return upstream_gives


def test_a_fresh_clone_gets_its_data_from_the_upstream(made: str, repository: Path, given: Params) -> None:
    """The two months that data.dvc names are asked for again, hash the same, and are in data/, cache and remote."""
    before = (repository / "data.dvc").read_bytes()
    lines: list[str] = []
    assert delivery.restore(given, lines.append)
    assert versions.present()
    assert (repository / "data.dvc").read_bytes() == before
    assert "up to date" in Project(repository).dvc("status", "-c", "data.dvc") or "in sync" in Project(repository).dvc(
        "status", "-c"
    )
    assert "up to date" in Project(repository).dvc("status")
    assert sum("asked for" in line for line in lines) == 2
    assert not delivery.restore(given, quiet)
    forget(repository)
    assert delivery.restore(given, lines.append)
    assert lines[-1] == f"brought {made} from the remote"


UpstreamGives = Callable[[Callable[[str, str, bytes], bytes]], None]


def test_an_upstream_that_gives_something_else_is_refused(
    made: str, repository: Path, given: Params, upstream_gives: UpstreamGives
) -> None:
    """One byte more: nothing is put into data/, and the error names both hashes."""
    upstream_gives(lambda dataset, _, content: content + b"\n" * (dataset == "weather"))
    with pytest.raises(DataVersionDiffers, match=rf"gives \w+\.dir, and data.dvc names {made}.*is not known"):
        delivery.restore(given, quiet)
    assert not (repository / "data").exists()


def test_a_refusal_names_the_partitions_when_the_listing_is_known(
    made: str, repository: Path, given: Params, upstream_gives: UpstreamGives
) -> None:
    """With the listing of the version in the remote and its files gone, the error says which partition differs."""
    delivery.restore(given, quiet)
    forget(repository)
    for path in (repository / "var/remote").rglob("*"):
        if path.is_file() and path.suffix != ".dir":
            path.unlink()
    upstream_gives(lambda _, partition, content: content[: -1 if partition == "2013-02" else None])
    with pytest.raises(DataVersionDiffers, match=r"these differ: flights/2013-02.csv, weather/2013-02.csv"):
        delivery.restore(given, quiet)


def test_what_is_in_no_version_stops_a_restore(made: str, repository: Path, given: Params) -> None:
    """A file in data/ that the version does not hold is neither removed nor mixed in."""
    stranger = write(repository / "data/flights/2013-07.csv", "mine")
    with pytest.raises(DataVersionDiffers, match=r"does not: flights/2013-07.csv"):
        delivery.restore(given, quiet)
    assert stranger.read_text() == "mine"


def test_without_an_upstream_and_without_a_remote_the_data_is_missing(made: str, given: Params) -> None:
    """A project whose remote does not have the version, and that has no upstream, is told both."""
    with pytest.raises(DataMissing, match=r"could not pull the data version.*names no upstream"):
        delivery.restore(given.model_copy(update={"upstream": None}), quiet)


def test_without_data_dvc_there_is_nothing_to_restore(repository: Path, given: Params) -> None:
    """A project that has no version yet is told to let data arrive."""
    with pytest.raises(DataMissing, match=r"there is no data\.dvc"):
        delivery.restore(given, quiet)


# ── the whole of ingest ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("killed_after", ["collect", "make", "push", "clear"])
def test_an_ingest_that_is_killed_between_its_steps_is_finished_by_the_next(
    killed_after: str, repository: Path, given: Params
) -> None:
    """Killed after any step, the next run ends with one version, pushed, and an empty landing zone."""

    def ingest(kill: str | None = None) -> None:
        collected = landing.collect(given, quiet)
        for step, act in {
            "collect": lambda: None,
            "make": versions.make,
            "push": versions.push,
            "clear": lambda: landing.clear(given, collected),
        }.items():
            act()
            if step == kill:
                raise Killed

    delivery.deliver(given, ["2013-01"], quiet)
    with pytest.raises(Killed):
        ingest(killed_after)
    ingest()
    assert versions.present()
    assert not versions.push()
    assert files.tree(repository / "var/landing") == {}
    assert sorted(versions.tree()) == ["flights/2013-01.csv", "weather/2013-01.csv"]


def test_what_a_killed_push_left_in_the_remote_is_swept(repository: Path, small: Put) -> None:
    """DVC writes beside, and a kill leaves that; what another checkout began a minute ago is not touched."""
    folder = repository / "var/remote/files/md5/1c"
    folder.mkdir(parents=True)
    old, new = folder / ".killed.tmp", folder / ".being-written.tmp"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    small("flights/2013-01.csv", "a")
    versions.make()
    assert versions.push()
    assert not old.exists()
    assert new.exists()


def test_a_damaged_object_of_the_cache_is_fetched_again(pushed: Path) -> None:
    """DVC takes a file of the right name for the right one; the remote has it whole, and that is what data/ gets."""
    names = (*versions.tree().values(), str(versions.current()))
    objects = {name: pushed / ".dvc/cache" / dvc_store._object(name) for name in names}
    for cached in objects.values():
        damage(cached)
    forget(pushed, "data")
    assert versions.pull()
    assert (pushed / "data/flights/2013-01.csv").read_text() == "a"
    assert all(files.md5(cached) == name.removesuffix(".dir") for name, cached in objects.items())
    assert versions.make() is None


@pytest.mark.parametrize("listing", [True, False])
def test_what_is_damaged_in_the_remote_too_does_not_come_into_data(pushed: Path, listing: bool) -> None:
    """It is said which object, and what to do; data/ stays as it is."""
    name = str(versions.current()) if listing else next(iter(versions.tree().values()))
    damage(pushed / "var/remote" / dvc_store._object(name))
    forget(pushed)
    with pytest.raises(SourceUnavailable, match=f"{name} is damaged in the remote: push it again from a checkout"):
        versions.pull()
    assert not list((pushed / "data").rglob("*.csv"))


def test_a_download_that_fails_says_why(pushed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk, a file that may not be read: the cause is in the error, and not in a log of DVC's alone."""
    name = next(iter(versions.tree().values()))
    forget(pushed)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for copies in ("reflink", "put_file"):
        monkeypatch.setattr(f"dvc_objects.fs.local.FsspecLocalFileSystem.{copies}", full)
    with pytest.raises(SourceUnavailable, match=r"could not bring a former revision: .*No space left on device"):
        versions.content(name)


def test_a_version_is_made_while_a_stage_reads_the_data(
    pushed: Path, small: Put, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC's list of who is at work is waited for, as its lock is; who waits says for whom, and advises nobody."""
    waiting = "touch begun; while [ ! -e awaited ]; do sleep 0.05; done"
    (pushed / "dvc.yaml").write_text(f"stages: {{look: {{cmd: '{waiting}', deps: [data], outs: [begun]}}}}\n")
    reader = subprocess.Popen([sys.executable, "-m", "dvc", "repro", "-q"], cwd=pushed)
    while not (pushed / "begun").exists() and reader.poll() is None:
        time.sleep(0.05)
    small("flights/2013-02.csv", "b")
    pause = time.sleep

    def sleep(seconds: float) -> None:
        (pushed / "awaited").touch()
        pause(min(seconds, 0.05))

    monkeypatch.setattr(dvc_files, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
    version = versions.make()
    assert version == versions.current()
    assert reader.wait() == 0
    printed = capsys.readouterr().out
    assert f"waiting: '{pushed}/data' is in use by (PID {reader.pid}): " in printed
    assert "rwlock" not in printed
