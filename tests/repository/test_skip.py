"""A stage is skipped exactly when nothing that can change its result has changed: tried, with real DVC."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import copy_project
from tests.repository import skip_table, skips
from tests.repository.skips import CASES, OF_SOURCES, RAN, STAGES, Case, Copy, Runner

ONE_OF_EACH_KIND = {
    "the model's pipeline",
    "the expectation suite",
    "a constant two imports away (evaluate → plots → metrics)",
    "a comment in feature code",
    "a hyper-parameter of this model",
    "a hyper-parameter of the other model",
    "a number written another way",
    "a new partition",
    "a bumped package that fitting stands on",
    "a corrupted output",
    "dvc.lock lost",
    "an output deleted whose file in the cache is corrupted",
    "another checkout with the same cache trains something else",
}
"""Of all changes those that each commit is tried with; the others are `long`."""


def _mark(case: Case) -> pytest.MarkDecorator:
    return pytest.mark.slow if case.kind in ONE_OF_EACH_KIND else pytest.mark.long


@dataclass
class Warm:
    """A project in which everything is up to date, and what its sources give from scratch."""

    root: Path
    runner: Runner
    gives: dict[str, str]
    reads: dict[str, list[str]]
    """Stage → the keys of params.yaml that it reads."""


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """The project, warmed once."""
    folder = tmp_path_factory.mktemp("skip")
    runner = Runner(folder)
    root = skips.make_project(folder / "warm")
    runner.do("add", root)
    alone = skips.sources(root, folder / "alone")
    warming = {"do": "reproduce", "root": str(root), "models": ["twin", "tiny"]}
    _, scratch = runner.do_all(warming, {"do": "scratch", "root": str(alone), "models": ["tiny"]})
    yield Warm(root, runner, scratch["made"], scratch["reads"])
    runner.close()


@pytest.mark.slow
def test_what_is_said_to_change_no_result_changes_none(warm: Warm, tmp_path: Path) -> None:
    """All such changes at once, from scratch and without any cache: the same bytes as without them."""
    copy = Copy(copy_project(warm.root, tmp_path / "project"), warm.runner)
    for case in OF_SOURCES:
        if case.must is None:
            case.change(copy)
    alone = skips.sources(copy.root, tmp_path / "alone")
    made = warm.runner.do("scratch", alone)["made"]
    assert made == warm.gives, stale(made, warm.gives)


LOOKED_AT = {"prepare": {"models.timezone"}}
"""What a stage reads to refuse by, and nothing that it makes depends on: the test that rows do not look ahead."""


@pytest.mark.slow
def test_a_stage_names_the_parameters_that_it_reads_and_no_others(warm: Warm) -> None:
    """One that it reads and dvc.yaml does not name would make stale results count as up to date."""
    graph = yaml.safe_load((warm.root / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    for stage, entry in graph.items():
        named = [key.replace("models.${key}.", "models.") for key in entry.get("do", entry).get("params", [])]
        read = set(warm.reads[stage]) - {"models"} - LOOKED_AT.get(stage, set())
        assert read == {".".join(key.split(".")[:2]) for key in named}, stage


@pytest.mark.slow
def test_nothing_changed_and_nothing_is_redone(warm: Warm, tmp_path: Path) -> None:
    """The measure of all that follows: a copy of a project has nothing to do, and holds what its sources give."""
    done, expected = changed(warm, tmp_path, Case("nothing", lambda _: None, None))
    assert done["why"] == {}
    assert set(done["how"].values()) == {"unchanged"}
    assert done["made"] == expected


@pytest.mark.parametrize("case", [pytest.param(case, id=case.kind, marks=_mark(case)) for case in CASES])
def test_what_can_change_a_result_is_redone_and_nothing_is_stale(case: Case, warm: Warm, tmp_path: Path) -> None:
    """After any change, what is in build/ is what a run from scratch gives; and what was called is what is said."""
    done, expected = changed(warm, tmp_path, case)
    assert done["made"] == expected, f"stale: {stale(done['made'], expected)}"
    ran = tuple(stage for stage in STAGES if done["how"][RAN[stage]] == "ran")
    assert ran == case.redoes
    assert ("restored" in done["how"].values()) == case.gives_back, done["how"]
    assert done["left"] == {}


def test_the_kinds_that_each_commit_is_tried_with_are_cases() -> None:
    """None was renamed."""
    assert {case.kind for case in CASES} >= ONE_OF_EACH_KIND


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.kind)
def test_the_table_is_true_to_itself(case: Case) -> None:
    """A stage that must be redone is; whatever else is redone is called needless, with its reason."""
    if case.must:
        assert case.must in case.redoes
    else:
        assert not case.redoes or case.why


def changed(warm: Warm, folder: Path, case: Case) -> tuple[dict[str, Any], dict[str, str]]:
    """A copy of the project with the change: what became of its stages, and what its sources give from scratch."""
    copy = Copy(copy_project(warm.root, folder / "project"), warm.runner, case.installed)
    case.change(copy)
    request = {"root": str(copy.root), "models": ["tiny"], "installed": case.installed}
    if case.must and case in OF_SOURCES:
        alone = skips.sources(copy.root, folder / "alone")
        scratch = {**request, "do": "scratch", "root": str(alone)}
        done, told = warm.runner.do_all({**request, "do": "reproduce"}, scratch)
        expected = told["made"]
    else:
        done, expected = warm.runner.do_all({**request, "do": "reproduce"})[0], warm.gives
    redone = {stage for stage, how in done["how"].items() if how != "unchanged"}
    assert redone <= set(done["why"]), f"not announced: {redone - set(done['why'])}"
    return done, expected


def stale(made: dict[str, str], expected: dict[str, str]) -> list[str]:
    """The files that differ from a run from scratch."""
    return sorted(path for path in {*made, *expected} if made.get(path) != expected.get(path))


def test_the_page_for_people_is_current() -> None:
    """docs/reference/skips.md says what these tests hold: `python -m tests.repository.skip_table` writes it."""
    assert skip_table.PAGE.read_text(encoding="utf-8") == skip_table.page()
