"""What arrives in the landing zone, and where it goes."""

from __future__ import annotations

import errno
import os
import shutil
import time
from pathlib import Path

import fsspec
import pytest

from models import upstream
from tasks.data import delivery, landing, quarantine
from tasks.data.landing import Collected
from tasks.data.zones import Landed, Zone
from tasks.ground import files
from tasks.ground.errors import ContractError, DataMissing, ParamsError, SourceUnavailable, WorldError
from tasks.ground.params import Params
from tests.tasks.data.conftest import killed_at, month, write

pytestmark = pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning")  # Great Expectations imports it


def land(root: Path, name: str, content: bytes) -> Path:
    """Put a file into the landing zone."""
    return write(root / "var" / "landing" / name, content)


def land_weather(root: Path, partition: str, content: bytes | None = None) -> Path:
    """Put weather into the landing zone: of this month, if nothing else is given."""
    return land(root, f"weather/{partition}.csv", month("weather", partition) if content is None else content)


def quiet(_: str) -> None:
    """Say nothing."""


def data(root: Path) -> dict[str, str]:
    """What is in data/ now."""
    return files.tree(root / "data") if (root / "data").exists() else {}


def names(landed: list[Landed]) -> list[str]:
    """What a list of landed files holds."""
    return [str(one) for one in landed]


def report_of(root: Path, dataset: str) -> tuple[Path, dict[str, object]]:
    """The one quarantined file of a dataset: its folder and its report."""
    (folder,) = (root / "var" / "quarantine" / dataset).iterdir()
    return folder, files.read_json(folder / "report.json")


def test_a_good_partition_goes_into_data_and_leaves_the_landing_zone_at_clear(root: Path, given: Params) -> None:
    """Accepted content is in data/ at once; the landing zone keeps its file until the version is safe."""
    path = land_weather(root, "2013-01")
    collected = landing.collect(given, quiet)
    assert names(collected.accepted) == ["weather 2013-01"]
    assert (root / "data/weather/2013-01.csv").read_bytes() == path.read_bytes()
    landing.clear(given, collected)
    assert not path.exists()


def test_the_same_partition_again_is_nothing_to_do(root: Path, given: Params) -> None:
    """A delivery that came twice changes nothing and is cleared away."""
    land_weather(root, "2013-01")
    landing.clear(given, landing.collect(given, quiet))
    before = data(root)
    path = land_weather(root, "2013-01")
    collected = landing.collect(given, quiet)
    assert collected == Collected(already_there=collected.already_there)
    landing.clear(given, collected)
    assert not path.exists()
    assert data(root) == before
    assert landing.collect(given, quiet) == Collected()


def test_a_bad_partition_is_quarantined_with_a_report_and_the_others_go_on(root: Path, given: Params) -> None:
    """February is broken: it waits with its reasons; January and March are taken in."""
    for partition in ("2013-01", "2013-03"):
        land_weather(root, partition)
    land_weather(root, "2013-02", month("weather", "2013-01"))
    said: list[str] = []
    collected = landing.collect(given, said.append)
    assert names(collected.accepted) == ["weather 2013-01", "weather 2013-03"]
    assert names(collected.quarantined) == ["weather 2013-02"]
    folder, report = report_of(root, "weather")
    page = (folder / "report.md").read_text()
    assert folder.name == f"2013-02-{files.md5(folder / '2013-02.csv')[:8]}"
    assert "`expect_column_values_to_be_between` | month" in page
    assert "| 2,226 (100 %) | row 1: 1; row 2: 1" in page
    assert "What to do" in page
    assert len(report["reports"]) == 2  # type: ignore[arg-type]
    assert any("quarantined in var/quarantine/weather/2013-02-" in line for line in said)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("fligths/2013-01.csv", "no model reads a dataset 'fligths'; did you mean 'flights'?"),
        ("flights/2013-01.xlsx", "its suffix is .xlsx, not .csv or .tsv or .parquet"),
        ("flights/2013-01.csv.gz", "its suffix is .gz, not .csv or .tsv or .parquet: unpack it"),
        ("flights/2013-01.jsonl", "its suffix is .jsonl, not .csv or .tsv or .parquet: JSON says no types"),
        ("flights/2013-01", "its suffix is missing, not .csv or .tsv or .parquet"),
        ("flights/2013/01.csv", "it lies in flights/2013, not directly in the folder of a dataset"),
        ("2013-01.csv", "it lies in no folder, not directly in the folder of a dataset"),
        ("flights/2013 01.csv", "'2013 01' is not a partition's name"),
        ("flights/weather-2013-11.csv", "its name says that it is of weather, and it lies in the folder of flights"),
    ],
)
def test_what_is_in_the_wrong_place_is_quarantined_with_a_hint(
    name: str, reason: str, root: Path, given: Params
) -> None:
    """A name that cannot be a partition's is said to be so, before anything is read."""
    path = land(root, name, b"x")
    (landed,) = landing.collect(given, quiet).quarantined
    assert str(landed.reason).startswith(reason)
    assert not path.exists()
    assert len(list((root / "var" / "quarantine").rglob("report.md"))) == 1


def test_a_partition_that_is_called_as_no_other_is_quarantined(root: Path, given: Params) -> None:
    """`storms-2013-02` could not be put in order among 2013-01, 2013-03; `weather-2013-04` says whose it is."""
    land_weather(root, "2013-01")
    landing.collect(given, quiet)
    for name, of in (("storms-2013-02", "2013-02"), ("weather-2013-03", "2013-03")):
        land_weather(root, of).rename(root / f"var/landing/weather/{name}.csv")
    collected = landing.collect(given, quiet)
    (refused,) = collected.quarantined
    assert str(refused.reason).startswith("its name begins with 'storms', and no other partition's of weather does")


def test_a_name_cannot_leave_its_folder(root: Path, given: Params) -> None:
    """A bucket's keys may hold `..`: such a file ends in quarantine, and nothing is written anywhere else."""
    bucket = fsspec.filesystem("memory")
    bucket.store.clear()
    bucket.pipe_file("/in/flights/../../../outside.csv", b"x")
    bucket.pipe_file("/in/../flights/2013-01.csv", b"x")
    before = {path for path in root.parent.rglob("*") if "memo" not in path.parts}
    collected = landing.collect(given.model_copy(update={"landing": "memory://in"}), quiet)
    assert collected.accepted == []
    new = {path for path in root.parent.rglob("*") if "memo" not in path.parts} - before
    assert {path.relative_to(root).parts[1] for path in new if path.is_file()} <= {"quarantine", "locks"}


def test_hidden_and_unfinished_files_are_left_alone(root: Path, given: Params) -> None:
    """What is being written, and what a desktop leaves behind, is none of our business."""
    for name in (".DS_Store", "flights/.2013-01.csv.swp", "flights/2013-01.csv.tmp", "flights/2013-01.csv.part"):
        land(root, name, b"x")
    assert landing.collect(given, quiet) == Collected()
    assert len([path for path in (root / "var/landing").rglob("*") if path.is_file()]) == 4


def test_a_file_that_just_came_is_waited_for_once(root: Path, given: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file younger than settle_seconds that does not change while we wait has arrived."""
    land_weather(root, "2013-01")
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    collected = landing.collect(given.model_copy(update={"settle_seconds": 5}), quiet)
    assert names(collected.accepted) == ["weather 2013-01"]
    assert len(waits) == 1
    assert 4 < waits[0] <= 5


def test_a_file_that_still_grows_is_left_for_the_next_look(
    root: Path, given: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that changes while we wait is still arriving; the others are taken in."""
    growing = land_weather(root, "2013-02", b"origin,")
    old = land_weather(root, "2013-01")
    os.utime(old, (1e9, 1e9))
    monkeypatch.setattr(time, "sleep", lambda _: growing.write_bytes(b"origin,year"))
    collected = landing.collect(given.model_copy(update={"settle_seconds": 5}), quiet)
    assert names(collected.still_arriving) == ["weather 2013-02"]
    assert names(collected.accepted) == ["weather 2013-01"]
    assert growing.exists()


def test_a_file_that_is_replaced_before_clear_stays(root: Path, given: Params) -> None:
    """A correction that lands between collect and clear is not thrown away with what it replaced."""
    path = land_weather(root, "2013-01")
    collected = landing.collect(given, quiet)
    path.write_bytes(b"a correction")
    landing.clear(given, collected)
    assert path.read_bytes() == b"a correction"


def test_a_partition_that_arrives_late_may_not_break_the_one_after_it(root: Path, given: Params) -> None:
    """What is in data/ must go on passing the validate stage, so a newcomer in between is tried from both sides."""
    land_weather(root, "2013-01")
    landing.clear(given, landing.collect(given, quiet))
    warm = month("weather", "2013-08").replace(b",2013,8,", b",2013,7,")
    land_weather(root, "2013-07", warm)
    suite = root / "models/flight_delay/expectations/weather.yaml"
    for old, new in (("temp_mean - 25", "temp_mean - 1"), ("temp_mean + 25", "temp_mean + 60"),
                     ("dewp_mean + 25", "dewp_mean + 60")):  # fmt: skip
        suite.write_text(suite.read_text().replace(f"previous_{old}", f"previous_{new}"))
    landing.clear(given, landing.collect(given, quiet))
    assert sorted(data(root)) == ["weather/2013-01.csv", "weather/2013-07.csv"]
    land_weather(root, "2012-12", month("weather", "2013-06").replace(b",2013,6,", b",2012,12,"))
    (landed,) = landing.collect(given, quiet).quarantined
    assert str(landed.reason).startswith("with it, 2013-01, which is in data/ already, would not pass: ")


@pytest.mark.parametrize("step", ["fetch", "replacing", "copyfile", "put", "clear", "refuse"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_kill_at_any_step_loses_nothing(step: str, *, after: bool, root: Path, given: Params) -> None:
    """Killed before or after any step, the next run ends where an undisturbed one does, and nothing is half-written."""
    good, bad = month("weather", "2013-01"), month("weather", "2013-03")
    land_weather(root, "2013-01", good)
    land_weather(root, "2013-02", bad)
    owners = {"fetch": Zone, "clear": Zone, "put": quarantine, "replacing": files, "copyfile": shutil}
    owner: object = owners.get(step, landing)
    with killed_at(owner, step, after=after):
        landing.collect(given, quiet)
    for path in (root / "data").glob("weather/2*"):
        assert path.read_bytes() == good
    landing.clear(given, landing.collect(given, quiet))
    assert data(root) == {"weather/2013-01.csv": files.sha256(root / "data/weather/2013-01.csv")}
    assert (root / "data/weather/2013-01.csv").read_bytes() == good
    folder, _ = report_of(root, "weather")
    assert (folder / "2013-02.csv").read_bytes() == bad
    assert not list((root / "var/landing").rglob("*.csv"))
    assert not list((root / "data").rglob(".*"))


@pytest.mark.parametrize("where", ["var/incoming/", "data/"])
def test_a_full_disk_is_said_and_leaves_nothing_half_written(
    where: str, root: Path, given: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No space: a clear error, data/ as it was, the landing zone untouched; with space the next run goes on."""
    path = land_weather(root, "2013-01")
    real = shutil.copyfile

    def full(source: str, target: str) -> None:
        if Path(target).is_relative_to(root / where):
            Path(target).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", full)
        with pytest.raises(WorldError, match=f"no space left on the disk while writing to {where}"):
            landing.collect(given, quiet)
    assert data(root) == {}
    assert path.exists()
    assert names(landing.collect(given, quiet).accepted) == ["weather 2013-01"]


@pytest.mark.parametrize(
    "address", ["s3://key:secret@nowhere/landing", "/mnt/nowhere/landing", "nosuch://key:secret@place/landing"]
)
def test_a_landing_zone_that_cannot_be_reached_is_said_with_its_address(
    address: str, root: Path, given: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the address, without the credentials in it, and what to do."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    with pytest.raises(SourceUnavailable, match=r"the landing zone .* cannot be reached.*Check `landing`") as raised:
        landing.collect(given.model_copy(update={"landing": address}), quiet)
    assert "secret" not in str(raised.value)
    assert address.replace("key:secret", "***") in str(raised.value)


def test_a_mistake_in_a_suite_quarantines_nothing(root: Path, given: Params) -> None:
    """A contract that cannot be used is ours to mend: the file stays in the landing zone."""
    path = land_weather(root, "2013-01")
    suite = root / "models/flight_delay/expectations/weather.yaml"
    suite.write_text(suite.read_text().replace("expect_column_mean_to_be_between", "expect_column_mean_to_be_betwen"))
    with pytest.raises(ContractError, match="did you mean 'expect_column_mean_to_be_between'"):
        landing.collect(given, quiet)
    assert path.exists()
    assert not list((root / "var/quarantine").rglob("*.*"))


def test_the_upstream_delivers_into_the_landing_zone(root: Path, given: Params) -> None:
    """Each dataset's file of a partition is put there whole, and nothing else is left beside it."""
    put = delivery.deliver(given, ["2013-01"], quiet)
    assert put == ["flights/2013-01.csv", "weather/2013-01.csv"]
    assert {path: (root / "var/landing" / path).read_bytes() for path in put} == {
        f"{dataset}/2013-01.csv": month(dataset, "2013-01") for dataset in upstream.DATASETS
    }
    assert sorted(files.tree(root / "var/landing")) == put


def test_asking_the_upstream_for_what_it_has_not_is_said(root: Path, given: Params) -> None:
    """An unknown partition and a missing upstream are different errors, each with a hint."""
    with pytest.raises(DataMissing, match=r"has no partition '2013-13'; did you mean '2013-1"):
        delivery.deliver(given, ["2013-13"], quiet)
    with pytest.raises(ParamsError, match="upstream is null"):
        delivery.deliver(given.model_copy(update={"upstream": None}), ["2013-01"], quiet)
    with pytest.raises(ParamsError, match=r"models\.nobody cannot be imported"):
        delivery.deliver(given.model_copy(update={"upstream": "models.nobody"}), ["2013-01"], quiet)


# ── the same with a bucket ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("scheme", ["memory://evergreen", "s3://evergreen"])
def test_a_bucket_works_where_a_folder_does(
    scheme: str, root: Path, given: Params, request: pytest.FixtureRequest
) -> None:
    """Landing zone and quarantine in a bucket: delivered, taken in, quarantined with its report, cleared."""
    if scheme.startswith("s3"):
        request.getfixturevalue("bucket")
    store = fsspec.filesystem(scheme.split(":", maxsplit=1)[0])
    given = given.model_copy(update={"landing": f"{scheme}/landing", "quarantine": f"{scheme}/quarantine"})
    assert landing.collect(given, quiet) == Collected()
    delivery.deliver(given.model_copy(update={"settle_seconds": 1}), ["2013-01"], quiet)
    store.pipe_file("evergreen/landing/weather/2013-02.csv", month("weather", "2013-03"))
    collected = landing.collect(given, quiet)
    assert names(collected.accepted) == ["flights 2013-01", "weather 2013-01"]
    assert names(collected.quarantined) == ["weather 2013-02"]
    landing.clear(given, collected)
    left = sorted(path.strip("/").split("/", 2)[-1].split("-", 2)[-1] for path in store.find("evergreen"))
    assert [name.split("/")[-1] for name in left] == ["2013-02.csv", "report.json", "report.md"]
    assert sorted(data(root)) == ["flights/2013-01.csv", "weather/2013-01.csv"]
    delivery.deliver(given, ["2013-01"], quiet)
    again = landing.collect(given, quiet)
    assert names(again.already_there) == ["flights 2013-01", "weather 2013-01"]
