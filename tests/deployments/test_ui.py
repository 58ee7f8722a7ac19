"""What people do in Prefect's UI, beside a real server: it stays or comes back, and what stops the loop is said.

The table of docs/reference/ui.md, as far as no worker is needed for it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deployments.orchestration import blockers, registration
from deployments.watching import registration_watch
from deployments.watching.champion_watch import ChampionWatch
from deployments.watching.registration_watch import GONE_SECONDS, RegistrationWatch
from deployments.watching.watcher import LandingWatch, PollingLoop
from flows.prefect_support import api, triggers
from tasks.ground import params
from tasks.ground.errors import ParamsError
from tests.deployments.alone import Alone, server
from tests.deployments.conftest import PATIENCE, until
from tests.deployments.watching import test_champion_watch

pytestmark = pytest.mark.timeout(180 * PATIENCE)


@pytest.fixture(scope="module")
def alone(small_copied: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alone]:
    """The small project, deployed; there is no worker."""
    with server(small_copied, tmp_path_factory.mktemp("ui") / "project") as alone:
        yield alone


def deployment(title: str = "train/tiny") -> dict[str, Any]:
    """A deployment, as the server has it."""
    return dict(api.call(f"/deployments/name/{title}"))


def patch(path: str, **fields: Any) -> None:
    """What the UI sends for an edit."""
    api.call(path, fields, method="PATCH")


def automation(name: str) -> str:
    """Where an automation is."""
    (found,) = [one["id"] for one in api.call("/automations/filter", {}) if one["name"] == name]
    return f"/automations/{found}"


def where() -> str:
    """Where train/tiny is."""
    return f"/deployments/{deployment()['id']}"


def schedule() -> str:
    """Where its schedule is."""
    return f"{where()}/schedules/{deployment()['schedules'][0]['id']}"


def limit(to: int) -> None:
    """What the page of concurrency limits sends."""
    patch(f"/v2/concurrency_limits/{deployment()['global_concurrency_limit']['id']}", limit=to)


@pytest.mark.usefixtures("alone")
def test_schedules_plan_runs_that_ask_the_policy() -> None:
    """The clock catches a lost trigger: the server's scheduler works, and hands over what the schedule says."""
    which = {"deployments": {"name": {"any_": ["tiny"]}}, "flows": {"name": {"any_": ["train"]}}}
    which |= {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
    planned = until(
        lambda: [run for run in api.call("/flow_runs/filter", which) if run["auto_scheduled"]], 90, "a plan"
    )
    assert planned[0]["parameters"] == {"model": "tiny", "again": False, "if_due": True}


def test_registering_again_changes_nothing_that_a_person_has_set(alone: Alone) -> None:
    """A paused and edited schedule, an automation that was switched off: both stay; the definition is put right."""
    before = deployment()
    edited = {"active": False, "schedule": {"cron": "0 3 * * *", "timezone": "Europe/Oslo"}}
    patch(schedule(), **edited)
    patch(automation("trigger train/tiny"), enabled=False)
    patch(where(), description="scribbled over")

    register = [sys.executable, "-m", "deployments.orchestration.registration"]
    assert alone.project.run(*register).stdout == "deployment train/tiny updated: description\n"
    all_of_them = "ingest/ingest, train/tiny, rollout/tiny, monitor/tiny, predict/tiny, backtest/tiny, tune/tiny"
    assert alone.project.run(*register).stdout == f"deployments are as they should be: {all_of_them}\n"

    after = deployment()
    assert after["description"] == before["description"]
    assert [(one["active"], one["schedule"]["cron"]) for one in after["schedules"]] == [(False, "0 3 * * *")]
    assert not api.call(automation("trigger train/tiny"))["enabled"]
    patch(automation("trigger train/tiny"), enabled=True)
    patch(schedule(), active=True)


@pytest.mark.usefixtures("alone")
def test_the_form_of_a_training_takes_its_own_model_only() -> None:
    """A typed form; what it does not offer is refused by the server."""
    form = deployment()["parameter_openapi_schema"]["properties"]
    assert (form["model"]["enum"], form["again"]["type"]) == (["tiny"], "boolean")
    with pytest.raises(api.PrefectApiError, match=r"409|422"):
        api.call(f"{where()}/create_flow_run", {"parameters": {"model": "huge"}})


POOL, QUEUE = "/work_pools/evergreen", "/work_pools/evergreen/queues/default"


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("do", "says", "undo"),
    [
        (
            lambda: patch(POOL, is_paused=True),
            "the work pool evergreen is paused, so no flow runs: prefect work-pool resume evergreen",
            lambda: patch(POOL, is_paused=False),
        ),
        (
            lambda: patch(POOL, concurrency_limit=0),
            "the work pool evergreen may run 0 flows at once: prefect work-pool clear-concurrency-limit evergreen",
            lambda: patch(POOL, concurrency_limit=None),
        ),
        (
            lambda: patch(QUEUE, is_paused=True),
            "the work queue default is paused, so no flow of it runs: prefect work-queue resume default -p evergreen",
            lambda: patch(QUEUE, is_paused=False),
        ),
        (
            lambda: api.call(f"{where()}/pause_deployment", {}),
            "train/tiny is paused, so only a person starts it: its switch in the UI resumes it",
            lambda: api.call(f"{where()}/resume_deployment", {}),
        ),
        (
            lambda: patch(schedule(), active=False),
            "the schedule of train/tiny is off, so a lost trigger is not caught: its switch in the UI",
            lambda: patch(schedule(), active=True),
        ),
        (
            lambda: limit(0),
            "train/tiny may run 0 times at once, so its runs wait for ever: `evergreen register` resets the limit to 1",
            lambda: registration.deploy(params.load()),
        ),
        (
            lambda: patch(automation("trigger train/tiny"), enabled=False),
            "the automation «trigger train/tiny» is off: its switch in the UI",
            lambda: patch(automation("trigger train/tiny"), enabled=True),
        ),
        (
            lambda: api.call(schedule(), method="DELETE"),
            (
                "train/tiny has no schedule any more, so a lost trigger is not caught: add one in the UI, "
                "or delete the deployment, which is then made anew"
            ),
            lambda: (api.call(where(), method="DELETE"), registration.deploy(params.load())),
        ),
    ],
)
def test_what_stops_the_loop_is_said_with_the_way_back(
    do: Callable[[], Any], says: str, undo: Callable[[], Any]
) -> None:
    """By `evergreen status` and the log, as long as it is so; registering again does not undo what somebody wanted."""
    looking, said = blockers.BlockerWatch(), params.load()
    assert (blockers.find(said), list(looking.look(said))) == ([], [])
    do()
    assert blockers.find(said) == [says]
    assert list(looking.look(said)) == [says]
    assert list(looking.look(said)) == []
    undo()
    assert list(looking.look(said)) == [f"no longer: {says}"]


@pytest.mark.usefixtures("alone")
def test_what_a_person_has_edited_stays_when_it_is_registered_again() -> None:
    """Parameters, further tags and job variables; which model it is, and how it is run, is not for editing."""
    at = f"/deployments/{deployment('rollout/tiny')['id']}"
    was = deployment("rollout/tiny")
    edited = {"model": "huge", "target": "kubernetes", "manifests": "../cluster", "never": 1}
    patch(at, enforce_parameter_schema=False)
    patch(at, parameters=edited, tags=["mine"], job_variables={"env": {"COLOUR": "red"}, "command": "true"})
    assert registration.deploy(params.load()) == [
        "deployment rollout/tiny updated: enforce_parameter_schema, job_variables, parameters, tags"
    ]
    now = deployment("rollout/tiny")
    assert now["parameters"] == {"model": "tiny", "target": "kubernetes", "manifests": "../cluster"}
    assert now["tags"] == [*was["tags"], "mine"]
    assert now["job_variables"] == {**was["job_variables"], "env": {"COLOUR": "red"}}
    assert registration.deploy(params.load())[0].startswith("deployments are as they should be")
    patch(at, parameters=was["parameters"], tags=was["tags"], job_variables=was["job_variables"])


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registration needs no other one: it would import Prefect again."""
    monkeypatch.setattr(registration_watch, "register", lambda *, keep: registration.deploy(params.load(), keep=keep))


@pytest.mark.usefixtures("alone", "in_this_process")
@pytest.mark.parametrize(
    ("remove", "lacks"),
    [
        (lambda: api.call(where(), method="DELETE"), "deployment train/tiny"),
        (lambda: api.call(automation("trigger train/tiny"), method="DELETE"), "automation «trigger train/tiny»"),
        (lambda: api.call(POOL, method="DELETE"), "work pool evergreen"),
    ],
)
def test_what_somebody_deletes_comes_again(remove: Callable[[], Any], lacks: str) -> None:
    """And is said: otherwise the loop would stand still without a word."""
    looking, said = RegistrationWatch(lambda: 0.0), params.load()
    assert list(looking.look(said)) == []
    remove()
    assert any(lacks.partition(" ")[2].strip("«»") in text for text in blockers.find(said))
    lines = list(looking.look(said))
    assert lines[0] == f"the Prefect server lacks {lacks}: registered"
    assert (registration.lacking(said), blockers.find(said)) == ([], [])
    assert list(looking.look(said)) == []
    assert registration.deploy(said)[0].startswith("deployments are as they should be")


@pytest.mark.usefixtures("in_this_process")
def test_a_model_that_comes_is_registered_and_triggered_and_one_that_goes_is_removed(alone: Alone) -> None:
    """While the platform is up; one that is gone for a moment only keeps what people edited."""
    now, path = [0.0], alone.project.root / "params.yaml"
    looking, text = RegistrationWatch(lambda: now[0]), path.read_text(encoding="utf-8")
    section = text.partition("  tiny:\n")[2]
    path.write_text(f"{text}  other:\n{section}", encoding="utf-8")
    lines = list(looking.look(params.load()))
    titles = ("train/other", "rollout/other", "monitor/other", "predict/other", "backtest/other", "tune/other")
    assert lines[0].startswith("the Prefect server lacks deployment train/other, ")
    assert [line.split(",")[0] for line in lines[1:7]] == [f"deployment {title} made" for title in titles]
    assert lines[-1].startswith("train/other is triggered, ")
    assert list(looking.look(params.load())) == []

    path.write_text(text, encoding="utf-8")
    (line,) = [line for line in looking.look(params.load()) if not line.startswith("deployments are")]
    assert line == f"params.yaml has no model of {', '.join(sorted(titles))} any more: removed in {GONE_SECONDS:.0f} s"
    now[0] = GONE_SECONDS - 1
    assert [line for line in looking.look(params.load()) if "removed" in line] == []
    now[0] = GONE_SECONDS + 1
    lines = list(looking.look(params.load()))
    assert "deployment train/other removed: params.yaml has no such model" in lines
    assert "automation «trigger train/other» removed" in lines
    assert list(looking.look(params.load())) == []


@pytest.mark.usefixtures("in_this_process")
def test_a_params_yaml_that_is_broken_for_a_while_is_told_and_ends_nothing(alone: Alone) -> None:
    """What does not need it goes on; when it is mended, all is well again."""
    path, said, done = alone.project.root / "params.yaml", [], []
    text = path.read_text(encoding="utf-8")
    rounds = PollingLoop(
        {
            "deployments": (lambda: RegistrationWatch().look(params.load()), 0),
            "landing": (lambda: LandingWatch().look(params.load()), 0),
            "runs": (lambda: done.append("looked"), 0),
        },
        said.append,
    )
    path.write_text("models: {tiny: [", encoding="utf-8")
    rounds.poll()
    rounds.poll()
    (trouble,) = said
    assert trouble.startswith(f"{ParamsError.__name__}: params.yaml")
    assert done == ["looked", "looked"]
    path.write_text(text, encoding="utf-8")
    rounds.poll()
    assert said[1:] == ["all is well again"]


def test_what_is_paused_is_triggered_by_nobody(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by files that land nor by a promotion, and it is said; the button starts it."""
    said: list[str] = []
    landed = alone.project.root / "var/landing/readings/2013-09.csv"
    landed.parent.mkdir(parents=True)
    landed.write_text("x")
    test_champion_watch.says(monkeypatch, ("new", None))
    for title in ("ingest/ingest", "rollout/tiny"):
        api.call(f"/deployments/{deployment(title)['id']}/pause_deployment", {})
    promotions = ChampionWatch(lambda _: False)
    looks = {
        "landing": (lambda: LandingWatch().look(params.load()), 0.0),
        "champions": (lambda: promotions.look(params.load()), 0.0),
    }
    PollingLoop(looks, said.append).poll()
    assert [line.partition(" is paused in Prefect")[0] for line in said] == [
        "DeploymentPaused: ingest/ingest",
        "WorldError: new is champion of tiny and does not serve: rollout/tiny",
    ]
    assert api.call(f"/deployments/{deployment('ingest/ingest')['id']}/create_flow_run", {})["id"]
    for title in ("ingest/ingest", "rollout/tiny"):
        api.call(f"/deployments/{deployment(title)['id']}/resume_deployment", {})
    assert triggers.trigger("ingest/ingest")
