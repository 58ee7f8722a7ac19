"""Revisions of a partition: histories in data.dvc, and what becomes of corrections, doubled events and withdrawals."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tasks.data import corrections, landing, quarantine, revisions, versions
from tasks.data.revisions import Revision, Side
from tasks.ground.errors import DataMissing, Mistake, StageFailed
from tasks.ground.params import Params
from tasks.journal import journal
from tests.conftest import Project
from tests.tasks.data.conftest import killed_at, write
from tests.tasks.data.conftest import month as month_of

pytestmark = [
    pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning"),  # Great Expectations imports it
    pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning"),  # DVC uses it
]

A, B, C = (Revision("2013-01.csv", letter) for letter in "abc")
NAME = "weather/2013-01"


class World:
    """A project that takes months of weather in, as the flow does."""

    def __init__(self, root: Path, given: Params) -> None:
        self.root, self.given = root, given
        self.said: list[str] = []

    def land(self, name: str, content: bytes) -> Path:
        """Deliver a file."""
        return write(self.root / "var/landing/weather" / name, content)

    def ingest(self) -> landing.Collected:
        """Take in what was delivered."""
        self.said.clear()
        if versions.behind():
            versions.catch_up()
        collected = landing.collect(self.given, self.said.append)
        versions.make()
        versions.push()
        landing.clear(self.given, collected)
        assert versions.present()
        return collected

    def land_january_as_parquet(self) -> Path:
        """Deliver what counts of January in the other format."""
        frame = pd.read_csv(self.root / "data/weather/2013-01.csv", parse_dates=["time_hour"])
        path = self.root / "var/landing/weather/2013-01.parquet"
        frame.astype({"time_hour": "datetime64[us, UTC]"}).to_parquet(path, index=False)
        return path

    def deliver(self, name: str, content: bytes) -> landing.Collected:
        """Deliver a file and take it in."""
        self.land(name, content)
        return self.ingest()

    @property
    def data(self) -> dict[str, bytes]:
        """What is in data/weather."""
        return {path.name: path.read_bytes() for path in (self.root / "data/weather").iterdir()}


@pytest.fixture
def world(repository: Path, given: Params) -> World:
    """With January and February in it."""
    for model in given.models:
        suite = repository / f"models/{model}/expectations/weather.yaml"
        suite.write_text(f"key: [origin, time_hour]\n{suite.read_text()}")
    world = World(repository, given)
    world.land("2013-01.csv", month("2013-01"))
    world.deliver("2013-02.csv", month("2013-02"))
    return world


def month(partition: str) -> bytes:
    """A real month of weather."""
    return month_of("weather", partition)


def corrected(partition: str, temp: str = "39.5", rows: int = 1) -> bytes:
    """The month with another temperature in its first rows."""
    lines = month(partition).decode().splitlines(keepends=True)
    at = lines[0].rstrip().split(",").index("temp")
    for row in range(1, rows + 1):
        cells = lines[row].split(",")
        cells[at] = temp
        lines[row] = ",".join(cells)
    return "".join(lines).encode()


# ── the histories ────────────────────────────────────────────────────────────────────────────────────


def test_the_histories_stands_in_data_dvc_and_comes_back_from_it() -> None:
    """Beside whatever else DVC or a person keeps in `meta`."""
    text = "outs:\n- md5: 1.dir\n  path: data\nmeta:\n  owner: us\n"
    histories = {NAME: [A, B, Revision()], "flights/2013-02": [C, A]}
    written = revisions.written(text, histories)
    assert revisions.parse(written) == histories
    assert yaml.safe_load(written)["meta"]["owner"] == "us"
    assert list(yaml.safe_load(written)["meta"]["revisions"]) == sorted(histories)
    assert revisions.parse(text) == {}
    with pytest.raises(DataMissing, match=r"meta\.revisions cannot be read"):
        revisions.parse("meta:\n  revisions:\n    a/b: [{file: x}]\n")


def test_what_is_other_than_before_has_one_revision_more() -> None:
    """Changed, in another format, gone, and there again; what only came has none."""
    before, now = {"d/1.csv": "a", "d/2.csv": "a", "d/3.csv": "a"}, {"d/1.csv": "b", "d/2.parquet": "c", "d/4.csv": "a"}
    histories = revisions.followed({}, before, now)
    assert histories == {
        "d/1": [Revision("1.csv", "a"), Revision("1.csv", "b")],
        "d/2": [Revision("2.csv", "a"), Revision("2.parquet", "c")],
        "d/3": [Revision("3.csv", "a"), Revision()],
    }
    assert revisions.followed(histories, now, now) == histories
    again = revisions.followed(histories, now, {**now, "d/3.csv": "d"})
    assert again["d/3"] == [Revision("3.csv", "a"), Revision(), Revision("3.csv", "d")]
    assert revisions.superseded(again, "d/3", "a") == 1
    assert revisions.superseded(again, "d/3", "d") is None
    assert revisions.superseded(again, "d/4", "a") is None


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "joined", "conflict"),
    [
        ("", "a", "", "a", False),
        ("", "", "a", "a", False),
        ("a", "b", "a", "b", False),
        ("a", "a", "b", "b", False),
        ("a", "b", "b", "b", False),
        ("a", "", "a", "", False),
        ("a", "a", "", "", False),
        ("a", "b", "c", "b", True),
        ("a", "", "b", "", True),
        ("", "a", "b", "a", True),
    ],
)
def test_two_sides_are_joined_by_partition(base: str, ours: str, theirs: str, joined: str, conflict: bool) -> None:
    """Whoever did something is followed; where both did something else, both are known and it is told."""
    sides = [Side({f"{NAME}.csv": md5} if md5 else {}, {}) for md5 in (base, ours, theirs)]
    result, conflicts = revisions.join(*sides)
    assert result.listing == ({f"{NAME}.csv": joined} if joined else {})
    assert conflicts == ([NAME] if conflict else [])
    other, _ = revisions.join(*sides, theirs_for=[NAME])
    assert other.listing == ({f"{NAME}.csv": theirs} if theirs else {}) or not conflict
    if conflict and ours and theirs:
        assert [one.md5 for one in result.histories[NAME]] == [theirs, ours]
        assert [one.md5 for one in other.histories[NAME]] == [ours, theirs]


def test_the_histories_of_two_sides_are_one() -> None:
    """It ends as the side that is taken does, and knows what the other knew."""
    name = f"{NAME}.csv"
    base = Side({name: "a"}, {})
    ours, theirs = Side({name: "b"}, {NAME: [A, B]}), Side({name: "a"}, {})
    assert revisions.join(base, ours, theirs)[0].histories == {NAME: [A, B]}
    assert revisions.join(base, theirs, ours)[0].histories == {NAME: [A, B]}
    both, conflicts = revisions.join(base, ours, Side({name: "c"}, {NAME: [A, C]}))
    assert (conflicts, both.histories) == ([NAME], {NAME: [A, C, B]})


# ── corrections ───────────────────────────────────────────────────────────────────────────────────


def test_a_correction_is_a_revision_and_is_told_by_rows(world: World) -> None:
    """The newest content counts alone; the former is in the histories and can be had; the log says what changed."""
    first = versions.current()
    collected = world.deliver("2013-01.csv", corrected("2013-01", rows=3))
    assert [str(one) for one in collected.accepted] == ["weather 2013-01"]
    assert world.said == ["weather 2013-01: accepted as a revision: 3 altered of 2,226 rows (temp 3)"]
    assert world.data == {"2013-01.csv": corrected("2013-01", rows=3), "2013-02.csv": month("2013-02")}
    assert versions.current() != first
    (former, now) = revisions.read()[NAME]
    assert versions.content(former.md5).read_bytes() == month("2013-01")
    assert now.md5 == versions.tree()[f"{NAME}.csv"]
    assert versions.files_of(str(first))[f"{NAME}.csv"] == former.md5
    assert "up to date" in Project(world.root).dvc("status")


def test_a_correction_in_the_other_format_replaces(world: World) -> None:
    """Never two files of one partition."""
    world.land_january_as_parquet()
    world.ingest()
    assert [one for one in world.said if "accepted as a revision: none changed of 2,226 rows" in one], world.said
    assert sorted(world.data) == ["2013-01.parquet", "2013-02.csv"]
    assert [one.file for one in revisions.read()[NAME]] == ["2013-01.csv", "2013-01.parquet"]


def test_a_former_revision_that_comes_again_undoes_nothing(world: World) -> None:
    """A doubled or late event: it is known, said with the way to have it count, and cleared away."""
    world.deliver("2013-01.csv", corrected("2013-01"))
    before = (world.root / "data.dvc").read_bytes()
    collected = world.deliver("2013-01.csv", month("2013-01"))
    assert [str(one) for one in collected.outdated] == ["weather 2013-01"]
    assert "its content is revision 1 of this partition" in world.said[0]
    assert "`evergreen revert weather 2013-01 --to 1`" in world.said[0]
    assert world.data["2013-01.csv"] == corrected("2013-01")
    assert (world.root / "data.dvc").read_bytes() == before
    assert not list((world.root / "var/landing/weather").iterdir())


def test_of_two_deliveries_that_wait_the_one_that_changed_last_counts(world: World) -> None:
    """Whatever their names: the correction in Parquet came first, the one in CSV after it."""
    os.utime(world.land_january_as_parquet(), (1e9, 1e9))
    world.deliver("2013-01.csv", corrected("2013-01"))
    assert world.data["2013-01.csv"] == corrected("2013-01")
    assert [one.file for one in revisions.read()[NAME]] == ["2013-01.csv", "2013-01.csv"]


def test_a_bad_correction_waits_in_quarantine_and_a_good_one_closes_it(world: World) -> None:
    """What counts stays; the refusal is closed by the next delivery of the partition, refused or accepted."""
    world.deliver("2013-01.csv", month("2013-03"))
    world.deliver("2013-01.csv", month("2013-04"))
    assert world.data["2013-01.csv"] == month("2013-01")
    (open_,) = quarantine.waiting(world.given.quarantine)
    assert open_.file == "2013-01.csv"
    assert [one.closed is None for one in quarantine.entries(world.given.quarantine)].count(False) == 1
    world.deliver("2013-01.csv", month("2013-01"))
    assert [one.id for one in quarantine.waiting(world.given.quarantine)] == [
        open_.id
    ]  # the same as before: no answer to what was refused
    world.deliver("2013-01.csv", corrected("2013-01"))
    assert quarantine.waiting(world.given.quarantine) == []


@pytest.mark.parametrize("step", ["note", "_make", "push"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_kill_while_a_revision_is_made_loses_nothing(step: str, *, after: bool, world: World) -> None:
    """A correction in the other format and a withdrawal at once; the next run ends where an undisturbed one does."""
    world.deliver("2013-03.csv", month("2013-03"))
    world.land_january_as_parquet()
    world.land("2013-03.withdrawn", b"")
    with killed_at(versions, step, after=after):
        world.ingest()
    world.ingest()
    assert sorted(world.data) == ["2013-01.parquet", "2013-02.csv"]
    assert [len(history) for history in revisions.read().values()] == [2, 2]
    assert not list((world.root / "var/landing/weather").iterdir())
    for history in revisions.read().values():
        assert versions.content(history[0].md5)


# ── taken back, taken out ─────────────────────────────────────────────────────────────────────────


def test_a_mistake_is_taken_back_and_the_data_version_is_the_one_before(world: World) -> None:
    """Identity is content: after the revert the version is the former one; and once more, the correction counts."""
    first = versions.current()
    world.deliver("2013-01.csv", corrected("2013-01"))
    second = versions.current()
    said = corrections.revert(world.given, "weather", "2013-01")
    assert "revision 1 counts again (1 altered of 2,226 rows (temp 1))" in said
    assert world.data["2013-01.csv"] == month("2013-01")
    assert versions.current() == first
    assert len(revisions.read()[NAME]) == 3
    world.deliver("2013-01.csv", corrected("2013-01"))  # the doubled event of what was taken back
    assert versions.current() == first
    corrections.revert(world.given, "weather", "2013-01")
    assert versions.current() == second
    lines = list(corrections.in_words(corrections.listed(world.given)))
    assert lines[0] == NAME
    assert re.search(r"  4  2013-01.csv \w+: 1 altered.*; revision 2 again, by hand, 20.*counts now", lines[-1])
    whys = [line.why for line in journal.lines(journal.PLATFORM, "data")][-3:]
    assert whys == ["delivered", "revision 1 again, by hand", "revision 2 again, by hand"]
    with pytest.raises(Mistake, match="has no revision 9; it has 1 to 4"):
        corrections.revert(world.given, "weather", "2013-01", to=9)
    with pytest.raises(Mistake, match="was never revised"):
        corrections.revert(world.given, "weather", "2013-02")
    with pytest.raises(Mistake, match=r"there is no partition weather/2013-10; did you mean 'weather/2013-01'"):
        corrections.revert(world.given, "weather", "2013-10")


def test_a_former_revision_comes_from_the_remote(world: World) -> None:
    """With an empty cache it is fetched; where nobody has it, that is said and nothing changes."""
    world.deliver("2013-01.csv", corrected("2013-01"))
    shutil.rmtree(world.root / ".dvc/cache")
    corrections.revert(world.given, "weather", "2013-01")
    assert world.data["2013-01.csv"] == month("2013-01")
    shutil.rmtree(world.root / ".dvc/cache")
    shutil.rmtree(world.root / "var/remote")
    with pytest.raises(DataMissing, match=r"neither in DVC's cache nor in its remote"):
        corrections.revert(world.given, "weather", "2013-01")
    assert world.data["2013-01.csv"] == month("2013-01")


def test_a_source_withdraws_a_partition_with_a_marker(world: World) -> None:
    """It is gone from the next version; delivered again unchanged it stays out; corrected, it comes back."""
    collected = world.deliver("2013-02.withdrawn", b"")
    assert [str(one) for one in collected.withdrawn] == ["weather 2013-02"]
    assert sorted(world.data) == ["2013-01.csv"]
    assert [one.withdrawn for one in revisions.read()["weather/2013-02"]] == [False, True]
    assert world.deliver("2013-02.withdrawn", b"").outdated
    assert world.deliver("2013-02.csv", month("2013-02")).outdated
    assert sorted(world.data) == ["2013-01.csv"]
    world.deliver("2013-02.csv", corrected("2013-02"))
    assert world.data["2013-02.csv"] == corrected("2013-02")
    old = versions.tree()["weather/2013-01.csv"]
    assert world.deliver("2013-02.withdrawn", old.encode()).outdated  # a late event: it means another content
    assert sorted(world.data) == ["2013-01.csv", "2013-02.csv"]
    corrections.withdraw(world.given, "weather", "2013-02")
    assert sorted(world.data) == ["2013-01.csv"]
    corrections.revert(world.given, "weather", "2013-02")
    assert world.data["2013-02.csv"] == corrected("2013-02")


def test_the_only_partition_of_a_dataset_is_not_withdrawn(world: World) -> None:
    """The marker waits in quarantine with the reason; a person is told the same."""
    world.deliver("2013-02.withdrawn", b"")
    world.deliver("2013-01.withdrawn", b"")
    (refused,) = quarantine.waiting(world.given.quarantine)
    assert "it is the only partition of weather" in refused.reason
    with pytest.raises(StageFailed, match=r"the only partition of weather.*Nothing was changed"):
        corrections.withdraw(world.given, "weather", "2013-01")
    with pytest.raises(Mistake, match=r"no partition weather/2013-11; did you mean '2013-01'"):
        corrections.withdraw(world.given, "weather", "2013-11")


def test_what_another_worker_revised_or_withdrew_is_taken_over(world: World) -> None:
    """data.dvc is pulled from Git: data/ follows it, and a withdrawn partition does not come back from here."""
    text = (world.root / "data.dvc").read_text()
    world.deliver("2013-01.csv", corrected("2013-01"))
    world.deliver("2013-02.withdrawn", b"")
    newest = (world.root / "data.dvc").read_text()
    (world.root / "data.dvc").write_text(text)
    versions.pull()
    assert world.data == {"2013-01.csv": month("2013-01"), "2013-02.csv": month("2013-02")}
    (world.root / "data.dvc").write_text(newest)
    world.ingest()
    assert world.data == {"2013-01.csv": corrected("2013-01")}
    assert (world.root / "data.dvc").read_text() == newest
