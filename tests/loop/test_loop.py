"""The loop under schedules of events and kills: a few seeds here, hundreds in `make bench-soak`."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.loop import invariants, schedule, soak
from tests.loop.platform import Platform
from tests.loop.world import World, load

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

SEEDS = (5, 19, 54)
"""Together: every kind of delivery, hand edit and wake-up."""


def test_schedules_with_kills_end_as_without(shared: Platform) -> None:
    """Nothing lost, nothing doubled, no half state, whatever was delivered, edited, woken and killed."""
    found = {seed: soak.play(shared, seed) for seed in SEEDS}
    assert {seed: result.faults for seed, result in found.items() if result.faults} == {}
    happened = set().union(*(result.happened for result in found.values()))
    assert happened >= {"_arrive", "_twice", "_bad", "_other", "_edit", "_hand", *schedule.WAKES} - {"lost"}
    assert sum(result.kills for result in found.values()) >= len(SEEDS)


def test_a_kill_between_any_two_writes_of_a_promotion_is_repaired(shared: Platform) -> None:
    """A few of the boundaries here, each of them in `make bench-soak`."""
    boundaries = soak.Boundaries(shared)
    most = boundaries.count("registry")
    faults = [boundaries.kill("registry", at) for at in (most - 8, most - 3)]
    assert [fault for found in faults for fault in found] == []


# ── the invariants can fail ───────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def rested(shared: Platform) -> World:
    """A project at rest, with two versions, a revised partition and something in quarantine."""
    world = World(shared, shared.project("rested"), random.Random(0))
    world.edit(r"(params: \{C: )[0-9.]+", "0.0001")
    for month in (1, 2, 3):
        world.deliver(f"readings/2013-{month:02d}.csv", shared.content(month), valid=True)
        world.deliver(f"readings/2013-{month:02d}.txt", f"no table of {month}".encode(), valid=False)
    assert soak.rest(world) == []
    world.edit(r"(params: \{C: )[0-9.]+", "1.0")
    world.deliver("readings/2013-02.csv", shared.content(2, 1), valid=True)
    assert soak.rest(world) == []
    return world


def _sql(query: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        with closing(sqlite3.connect(root / "var/mlflow/mlflow.db")) as database:
            database.execute(query)
            database.commit()

    return damage


def _remove(pattern: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        for path in sorted(root.glob(pattern))[:1]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


def _uncached(root: Path) -> None:
    md5 = invariants.data(root)["readings/2013-02.csv"]
    (root / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]).unlink()


def _former_gone(root: Path) -> None:
    former = invariants.revisions(root)["readings/2013-02"][0]
    (root / "var" / "remote" / "files" / "md5" / former[:2] / former[2:]).unlink()


def _forgotten(root: Path) -> None:
    path = root / "data.dvc"
    path.write_text(path.read_text().partition("meta:")[0])


def _write(name: str, text: str = "x") -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)

    return damage


ALIASES, NOTE = "registered_model_aliases", "var/mlflow/settled/tiny.json"

DAMAGES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "a partition is gone": ("lost", _remove("data/readings/2013-02.csv")),
    "a partition has other content": ("half", _write("data/readings/2013-02.csv")),
    "a partition is there twice": ("doubled", _write("data/readings/2013-02.parquet")),
    "a refused file is gone": ("lost", _remove("var/quarantine/readings/*")),
    "a report is gone": ("half", _remove("var/quarantine/readings/*/report.json")),
    "a file was not taken in": ("lost", _write("var/landing/readings/2013-04.csv")),
    "a former revision is gone": ("lost", _former_gone),
    "a revision is forgotten": ("half", _forgotten),
    "the cache lacks a partition": ("lost", _uncached),
    "the remote lacks something": ("lost", _remove("var/remote/files/md5/*")),
    "an output is gone": ("half", _remove("build/tiny/model/model.skops")),
    "the run is gone": ("lost", _sql("update runs set lifecycle_stage = 'deleted'")),
    "the run is unfinished": ("half", _sql("update runs set status = 'RUNNING'")),
    "the run is doubled": (
        "doubled",
        _sql("update tags set value = (select max(value) from tags where key = 'evergreen.candidate') "
             "where key = 'evergreen.candidate'"),
    ),
    "the artifacts are gone": ("half", _remove("var/mlflow/artifacts/tiny/*/artifacts/release")),
    "the verdict is gone": ("half", _remove("var/mlflow/artifacts/tiny/*/artifacts/verdicts/*")),
    "there is no champion": ("half", _sql(f"delete from {ALIASES} where alias = 'champion'")),
    "the champion is another": ("half", _sql(f"update {ALIASES} set version = 1 where alias = 'champion'")),
    "an alias names nothing": ("half", _sql(f"update {ALIASES} set version = 7 where alias = 'former'")),
    "a verdict has no tag": ("half", _sql("delete from model_version_tags where key = 'evergreen.verdict'")),
    "nobody knows since when": ("half", _sql("delete from registered_model_tags where value = '2'")),
    "a Bento is gone": ("half", _remove("var/bentoml/bentos/tiny/*")),
    "a Bento is not whole": ("half", _remove("var/bentoml/bentos/tiny/*/src/model.skops")),
    "the note is about another": ("half", _write(NOTE, '{"inputs": {"candidate": "x"}, "outcome": {"outcome": ""}}')),
    "something is left over": ("half", _write("var/champions/.x.1-2.tmp")),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_seen(rested: World, damage: str) -> None:
    """Whoever looks at a project at rest says that something is wrong with it, and of which kind."""
    kept = rested.root.with_name("kept")
    shutil.copytree(rested.root, kept, symlinks=True)
    kind, do = DAMAGES[damage]
    try:
        do(rested.root)
        found = invariants.faults(rested)
    finally:
        shutil.rmtree(rested.root)
        kept.rename(rested.root)
    assert kind in {fault.kind for fault in found}, found
    assert load(rested.root / "build/tiny/release/candidate.json")
