"""Data versions, against real DVC in a git repository of its own."""

from __future__ import annotations

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
from tasks.data import delivery, landing, versions
from tasks.ground import files
from tasks.ground.errors import DataMissing, DataVersionDiffers, SourceUnavailable
from tasks.ground.params import Params

pytestmark = [
    pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning"),  # Great Expectations imports it
    pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning"),  # DVC uses it
]

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def own_site_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC's state of this test alone."""
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")


@pytest.fixture
def small(repository: Path) -> Callable[[str, str], Path]:
    """Put a small file into data/, as ingest would."""

    def put(name: str, content: str) -> Path:
        path = repository / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path

    return put


def dvc(root: Path, *arguments: str) -> str:
    """What the command line says."""
    run = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=root, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def quiet(_: str) -> None:
    """Say nothing."""


def test_the_hash_of_a_folder_is_the_one_dvc_gives(repository: Path, small: Callable[[str, str], Path]) -> None:
    """Names that sort differently by part and by path, other alphabets, empty files: the same hash as `dvc add`."""
    for name in ("a/b.csv", "a-b.csv", "a.csv", "a/ä ü.csv", "Z/1.parquet", "z/empty.csv"):
        small(name, "" if "empty" in name else name)
    small("a/.half.csv.12.tmp", "not counted")
    (repository / "data/a/__pycache__").mkdir()
    small("a/__pycache__/x.pyc", "not counted")
    dvc(repository, "add", "data")
    assert versions.current() == versions.dir_hash(versions.tree())
    assert versions.present()


def test_a_version_is_made_once_and_dvc_agrees(repository: Path, small: Callable[[str, str], Path]) -> None:
    """Make gives the new version, then None; DVC has nothing to add; another file makes another version."""
    assert versions.current() is None
    assert versions.make() is None
    small("flights/2013-01.csv", "a")
    first = versions.make()
    assert first == versions.current()
    assert str(first).endswith(".dir")
    before = (repository / "data.dvc").read_bytes()
    assert versions.make() is None
    assert "up to date" in dvc(repository, "status")
    assert (repository / "data.dvc").read_bytes() == before
    small("flights/2013-02.csv", "b")
    assert versions.make() not in (None, first)


def test_dvc_is_not_imported_when_nothing_changed(repository: Path, small: Callable[[str, str], Path]) -> None:
    """In a fresh process, make and push find out that there is nothing to do without DVC."""
    small("flights/2013-01.csv", "a")
    versions.make()
    versions.push()
    code = (
        "import sys; from tasks.data import versions as v; print(v.make(), v.push(), v.pull(), v.present(),"
        "[m for m in ('dvc', 'pandas', 'great_expectations', 'fsspec') if m in sys.modules])"
    )
    environment = {"EVERGREEN_ROOT": str(repository), "PYTHONPATH": str(REPOSITORY)}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "None False False True []"


def test_a_version_only_grows(repository: Path, small: Callable[[str, str], Path]) -> None:
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


def test_a_version_that_nobody_has_is_not_forgotten(repository: Path, small: Callable[[str, str], Path]) -> None:
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


def test_pushed_is_said_only_while_it_is_true(repository: Path, small: Callable[[str, str], Path]) -> None:
    """A second push is nothing; a remote that lost its folder or one file of it is pushed to again."""
    small("flights/2013-01.csv", "a")
    versions.make()
    assert versions.push()
    assert not versions.push()
    remote = repository / "var/remote"
    listing = files.tree(remote)
    shutil.rmtree(remote)
    assert versions.push()
    assert files.tree(remote) == listing
    (one,) = [path for path in remote.rglob("*") if path.is_file() and path.suffix != ".dir"]
    one.chmod(0o644)
    one.unlink()
    assert versions.push()
    assert files.tree(remote) == listing


@pytest.mark.parametrize("listing", [True, False])
def test_half_a_file_in_the_remote_is_pushed_again(
    repository: Path, small: Callable[[str, str], Path], listing: bool
) -> None:
    """DVC writes there directly: a kill leaves the beginning of a file, which it would take for the file."""
    small("flights/2013-01.csv", "a")
    versions.make()
    versions.push()
    remote = repository / "var/remote"
    whole = files.tree(remote)
    (one,) = [path for path in remote.rglob("*") if path.is_file() and (path.suffix == ".dir") == listing]
    one.chmod(0o644)
    one.write_text("")
    assert versions.push()
    assert files.tree(remote) == whole


def test_pull_brings_the_version_back(repository: Path, small: Callable[[str, str], Path]) -> None:
    """Without data/ and without a cache, the remote gives the same files; again is nothing to do."""
    small("flights/2013-01.csv", "a")
    versions.make()
    versions.push()
    shutil.rmtree(repository / "data")
    shutil.rmtree(repository / ".dvc/cache")
    assert versions.pull()
    assert (repository / "data/flights/2013-01.csv").read_text() == "a"
    assert not versions.pull()


def test_a_pull_does_not_throw_away_what_is_in_no_version(repository: Path, small: Callable[[str, str], Path]) -> None:
    """A partition that ingest took in and no version holds yet survives a pull, which says so."""
    small("flights/2013-01.csv", "a")
    versions.make()
    versions.push()
    (repository / "data/flights/2013-01.csv").unlink()
    newcomer = small("flights/2013-02.csv", "b")
    with pytest.raises(DataVersionDiffers, match=r"does not: flights/2013-02.csv"):
        versions.pull()
    assert newcomer.read_text() == "b"


def test_a_pull_of_an_older_version_takes_out_what_the_newer_one_keeps(
    repository: Path, small: Callable[[str, str], Path]
) -> None:
    """After `git checkout` of an older data.dvc, data/ follows: nothing is asked, and nothing is lost."""
    small("flights/2013-01.csv", "a")
    versions.make()
    older = (repository / "data.dvc").read_bytes()
    small("flights/2013-02.csv", "b")
    newer = versions.make()
    text = (repository / "data.dvc").read_bytes()
    versions.push()
    (repository / "data.dvc").write_bytes(older)
    assert versions.pull()
    assert list(versions.tree()) == ["flights/2013-01.csv"]
    (repository / "data.dvc").write_bytes(text)
    assert versions.pull()
    assert versions.current() == newer
    assert versions.present()


def test_a_remote_that_cannot_be_reached_is_said(repository: Path, small: Callable[[str, str], Path]) -> None:
    """A folder that cannot be made: the error names what was tried; the marker does not claim that it was pushed."""
    small("flights/2013-01.csv", "a")
    versions.make()
    (repository / "var/remote").write_text("a file where the folder should be")
    for _ in range(2):
        with pytest.raises(SourceUnavailable, match="could not push the data version"):
            versions.push()


@pytest.mark.parametrize("text", ["outs: []\n", "", "outs:\n- path: data\n"])
def test_a_data_dvc_that_names_nothing_is_said(text: str, repository: Path) -> None:
    """An empty file is not «no version»: the error says what to do."""
    (repository / "data.dvc").write_text(text)
    with pytest.raises(DataMissing, match=r"data\.dvc names no data version.*git checkout HEAD -- data\.dvc"):
        versions.current()


def test_a_data_dvc_with_both_sides_of_a_merge_names_the_command_that_joins_them(repository: Path) -> None:
    """`git checkout data.dvc` is refused by Git then, and either side alone would lose the other's partitions."""
    (repository / "data.dvc").write_text("outs:\n<<<<<<< HEAD\n- md5: a\n=======\n- md5: b\n>>>>>>> other\n")
    with pytest.raises(DataMissing, match=r"both sides of a merge: `evergreen merge`"):
        versions.current()


# ── make data ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def made(repository: Path, put: Callable[[str, str], Path]) -> str:
    """A repository whose data.dvc names two months, as a fresh clone sees it: no data/, no cache, an empty remote."""
    for partition in ("2013-01", "2013-02"):
        for dataset in upstream.DATASETS:
            put(dataset, partition)
    version = versions.make()
    shutil.rmtree(repository / "data")
    shutil.rmtree(repository / ".dvc/cache")
    assert version is not None
    return version


def test_a_fresh_clone_gets_its_data_from_the_upstream(made: str, repository: Path, given: Params) -> None:
    """The two months that data.dvc names are asked for again, hash the same, and are in data/, cache and remote."""
    before = (repository / "data.dvc").read_bytes()
    said: list[str] = []
    assert delivery.restore(given, said.append)
    assert versions.present()
    assert (repository / "data.dvc").read_bytes() == before
    assert "up to date" in dvc(repository, "status", "-c", "data.dvc") or "in sync" in dvc(repository, "status", "-c")
    assert "up to date" in dvc(repository, "status")
    assert sum("asked for" in line for line in said) == 2
    assert not delivery.restore(given, quiet)
    shutil.rmtree(repository / "data")
    shutil.rmtree(repository / ".dvc/cache")
    assert delivery.restore(given, said.append)
    assert said[-1] == f"brought {made} from the remote"


def test_an_upstream_that_gives_something_else_is_refused(
    made: str, repository: Path, given: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One byte more: nothing is put into data/, and the error names both hashes."""
    real = upstream.deliver
    changed = SimpleNamespace(
        partitions=upstream.partitions,
        deliver=lambda dataset, name: (f"{name}.csv", real(dataset, name)[1] + b"\n" * (dataset == "weather")),
    )
    monkeypatch.setattr(delivery, "upstream", lambda _: changed)
    with pytest.raises(DataVersionDiffers, match=rf"gives \w+\.dir, and data.dvc names {made}.*is not known"):
        delivery.restore(given, quiet)
    assert not (repository / "data").exists()


def test_a_refusal_names_the_partitions_when_the_listing_is_known(
    made: str, repository: Path, given: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the listing of the version in the remote and its files gone, the error says which partition differs."""
    delivery.restore(given, quiet)
    for folder in ("data", ".dvc/cache"):
        shutil.rmtree(repository / folder)
    for path in (repository / "var/remote").rglob("*"):
        if path.is_file() and path.suffix != ".dir":
            path.unlink()
    real = upstream.deliver
    changed = SimpleNamespace(
        partitions=upstream.partitions,
        deliver=lambda dataset, name: (f"{name}.csv", real(dataset, name)[1][: -1 if name == "2013-02" else None]),
    )
    monkeypatch.setattr(delivery, "upstream", lambda _: changed)
    with pytest.raises(DataVersionDiffers, match=r"these differ: flights/2013-02.csv, weather/2013-02.csv"):
        delivery.restore(given, quiet)


def test_what_is_in_no_version_stops_a_restore(made: str, repository: Path, given: Params) -> None:
    """A file in data/ that the version does not hold is neither removed nor mixed in."""
    stranger = repository / "data/flights/2013-07.csv"
    stranger.parent.mkdir(parents=True)
    stranger.write_text("mine")
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


class Killed(BaseException):
    """What a kill is to the code it hits: nothing it could catch."""


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


def test_what_a_killed_push_left_in_the_remote_is_swept(repository: Path, small: Callable[[str, str], Path]) -> None:
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


def test_a_damaged_object_of_the_cache_is_fetched_again(repository: Path, small: Callable[[str, str], Path]) -> None:
    """DVC takes a file of the right name for the right one; the remote has it whole, and that is what data/ gets."""
    small("flights/2013-01.csv", "a")
    version = str(versions.make())
    versions.push()
    objects = {
        name: repository / ".dvc/cache" / versions._object(name) for name in (*versions.tree().values(), version)
    }
    for cached in objects.values():
        cached.chmod(0o644)
        cached.write_text("damaged")
    shutil.rmtree(repository / "data")
    assert versions.pull()
    assert (repository / "data/flights/2013-01.csv").read_text() == "a"
    assert all(files.md5(cached) == name.removesuffix(".dir") for name, cached in objects.items())
    assert versions.make() is None


def test_what_is_damaged_in_the_remote_too_does_not_come_into_data(
    repository: Path, small: Callable[[str, str], Path]
) -> None:
    """It is said which object, and what to do; data/ stays as it is."""
    small("flights/2013-01.csv", "a")
    versions.make()
    versions.push()
    name = next(iter(versions.tree().values()))
    damaged = repository / "var/remote" / versions._object(name)
    damaged.chmod(0o644)
    damaged.write_text("damaged")
    damaged.chmod(0o444)  # for which DVC trusts it
    shutil.rmtree(repository / ".dvc/cache")
    shutil.rmtree(repository / "data")
    with pytest.raises(SourceUnavailable, match=f"{name} is damaged in the remote: push it again from a checkout"):
        versions.pull()
    assert not list((repository / "data").rglob("*.csv"))


def test_a_version_is_made_while_a_stage_reads_the_data(
    repository: Path, small: Callable[[str, str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """DVC's list of who is at work is waited for, as its lock is; who waits says for whom, and advises nobody."""
    small("flights/2013-01.csv", "a")
    versions.make()
    (repository / "dvc.yaml").write_text("stages: {look: {cmd: touch begun; sleep 3, deps: [data], outs: [begun]}}\n")
    reader = subprocess.Popen([sys.executable, "-m", "dvc", "repro", "-q"], cwd=repository)
    while not (repository / "begun").exists() and reader.poll() is None:
        time.sleep(0.05)
    small("flights/2013-02.csv", "b")
    version = versions.make()
    assert version == versions.current()
    assert reader.wait() == 0
    told = capsys.readouterr().out
    assert f"waiting: '{repository}/data' is in use by (PID {reader.pid}): " in told
    assert "rwlock" not in told
