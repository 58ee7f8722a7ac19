"""What a person sees and starts in the Prefect UI: `ingest`, and of each model every other flow.

Deploying again changes what differs and nothing else. Schedules are Prefect's from the first deployment on: whoever
edits or pauses one in the UI keeps that (docs/decisions/schedules.md). Models that are gone lose their deployment.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from deployments.orchestration import automations, flow_run
from deployments.orchestration.work_pool import POOL
from flows.prefect_support import api, events
from tasks.ground import exit_codes, files, params, paths, settings

TAG = "evergreen"
"""Marks what this module made, and so may remove."""

CONCURRENCY = {"collision_strategy": "ENQUEUE", "grace_period_seconds": 900}
"""A wake that comes while a run is at work waits, as that run may have looked already. A run keeps its place this long
until its process is there: on a busy machine that takes minutes, and Prefect would end a run that has lost its place
(docs/decisions/wakes.md). One that gets no process at all gives it back sooner, by crash_recovery.py."""


@dataclass(frozen=True)
class Deployment:
    """One deployment as it should be."""

    flow: str
    name: str
    description: str
    cron: str | None = None
    """The schedule it begins with."""
    wakes: dict[str, Any] | None = None
    """The trigger of the automation that starts it."""
    tags: list[str] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)
    """What the button starts it with."""
    woken_with: dict[str, Any] = field(default_factory=dict)
    """What the schedule and events change of them."""

    @property
    def title(self) -> str:
        """As Prefect writes it: flow/deployment."""
        return f"{self.flow}/{self.name}"


@exit_codes.command
def main(arguments: list[str] | None = None) -> int:
    """Deploy; gives the exit code. `--keep`: without removing the deployments of models that are gone."""
    for line in deploy(params.load(), keep=arguments == ["--keep"]):
        print(line, flush=True)
    return 0


def deploy(said: params.Params, *, keep: bool = False) -> list[str]:
    """Bring the server's deployments and automations to what this checkout says; gives a line per change.

    Raises:
        PrefectApiError: the Prefect server does not answer.
    """
    with files.lock("deploy"):
        _work_pool()
        lines = []
        ids = {}
        for wanted in deployments(said):
            ids[wanted.title], line = _ensure(wanted)
            lines += [line] if line else []
        if not keep:
            lines += _remove(others(said))
        woken = {
            one.title: (ids[one.title], one.wakes, {**one.parameters, **one.woken_with} if one.woken_with else None)
            for one in deployments(said)
            if one.wakes
        }
        lines += automations.ensure(woken, keep=keep)
        files.write_json(_note(), fingerprint(said))
    return lines or [f"deployments are as they should be: {', '.join(ids)}"]


def fingerprint(said: params.Params) -> dict[str, str]:
    """What a registration depends on, and with which server it is."""
    wanted = [asdict(one) for one in deployments(said)]
    return {
        "wanted": files.digest([wanted, automations.notify_url()]),
        "api": files.digest(os.environ["PREFECT_API_URL"]),
    }


def is_registered(said: params.Params) -> bool:
    """Whether that is what was registered last. What became of it on the server since then, `lacking` sees."""
    try:
        return bool(files.read_json(_note()) == fingerprint(said))
    except (FileNotFoundError, ValueError):
        return False


def lacking(said: params.Params) -> list[str]:
    """What the server does not have of what it should: the work pool, deployments, automations.

    Raises:
        PrefectApiError: the Prefect server does not answer.
    """
    titles = _registered()
    named = {one["name"] for one in automations.registered()}
    pool = [] if _has_work_pool() else [f"work pool {POOL}"]
    missing = [f"deployment {one.title}" for one in deployments(said) if one.title not in titles]
    woken = [automations.name_of(one.title) for one in deployments(said) if one.wakes]
    return [*pool, *missing, *(f"automation «{name}»" for name in woken if name not in named)]


def others(said: params.Params) -> dict[str, str]:
    """Title → id of the deployments whose models are no longer in params.yaml: each wake of theirs would fail."""
    wanted = {one.title for one in deployments(said)}
    return {title: id_ for title, id_ in _registered().items() if title not in wanted}


def _note() -> Path:
    return paths.registered_deployments()


def deployments(said: params.Params) -> list[Deployment]:
    """What this checkout says should be there."""
    ingest = Deployment(
        flow="ingest",
        name="ingest",
        description=(
            f"Takes in what lies in the landing zone `{api.masked(said.landing)}`: each partition is validated, and "
            "becomes part of a data version or waits in quarantine. Every model that reads what changed is then "
            "trained.\n\n"
            "Wakes: a file in the landing zone (`make up` watches it), the event `evergreen.partition.landed`, the "
            "schedule, this button. It looks itself at what is there, so one wake too many costs seconds."
        ),
        cron="*/15 * * * *",
        wakes=automations.on_event(events.LANDED, "evergreen.dataset.*"),
        tags=[TAG, "data"],
    )
    kinds = (_training, _serving, _watching, _scoring, _replaying)
    return [ingest, *(kind(name, model) for name, model in said.models.items() for kind in kinds)]


def _training(name: str, model: params.Model) -> Deployment:
    datasets = [f"evergreen.dataset.{dataset}" for dataset in model.datasets]
    return Deployment(
        flow="train",
        name=name,
        description=(
            f"**{model.about}**\n\nTrains `{name}` on the newest data version if anything it is made from has changed, "
            f"judges it against the champion on the same holdout rows (rule: {model.gate.rule} in {model.gate.loss}), "
            "and promotes or refuses it.\n\n"
            f"Wakes: a new data version of {' or '.join(model.datasets)}, and the schedule (which also finds an edited "
            "`params.yaml` or code); of new data these ask the retrain policy first. This button does not ask."
        ),
        cron="5-59/15 * * * *",
        wakes=automations.on_event(events.VERSION, events.DATA, {"prefect.resource.id": datasets}),
        tags=[TAG, "training", model.task],
        parameters={"model": name, "again": False, "if_due": False},
        woken_with={"if_due": True},
    )


def _serving(name: str, model: params.Model) -> Deployment:
    return Deployment(
        flow="rollout",
        name=name,
        description=(
            f"**{model.about}**\n\nHas the registry's champion of `{name}` serve. A new one is warmed beside who "
            f"serves, asked its golden rows and the last {model.rollout.replay} requests, given "
            f"{model.rollout.canary:.0%} of the requests for {model.rollout.bake_s:g} s, and then everything; one that "
            "fails is withdrawn.\n\n"
            "Wakes: a promotion, the schedule (which also finds an alias that was set by hand, and a rollback), this "
            "button."
        ),
        cron="10-59/15 * * * *",
        wakes=automations.on_event(events.CHAMPION, f"{events.MODEL}.{name}"),
        tags=[TAG, "serving", model.task],
        parameters={"model": name, "target": "local"},
    )


def _scoring(name: str, model: params.Model) -> Deployment:
    return Deployment(
        flow="predict",
        name=name,
        description=(
            f"**{model.about}**\n\nScores a file, a partition or a bucket prefix with a release of `{name}`, to "
            "Parquet: docs/how-to/score-a-file.md. Started again, it goes on where it ended.\n\nWakes: this button."
        ),
        tags=[TAG, "batch", model.task],
        parameters={"model": name},
    )


def _watching(name: str, model: params.Model) -> Deployment:
    return Deployment(
        flow="monitor",
        name=name,
        description=(
            f"**{model.about}**\n\nReads what was asked of `{name}` since the last time, holds it against the training "
            f"rows, joins the labels that have come, measures the predictions ({model.gate.loss}) or estimates how "
            "good they are, and opens and closes alarms.\n\n"
            "Wakes: the end of train, as new rows bring labels; the schedule; this button. Nothing new costs nearly "
            "nothing."
        ),
        cron="2-59/15 * * * *",
        tags=[TAG, "monitoring", model.task],
        parameters={"model": name},
    )


def _replaying(name: str, model: params.Model) -> Deployment:
    return Deployment(
        flow="backtest",
        name=name,
        description=(
            f"**{model.about}**\n\nLives through the history of `{name}` again, a decision a week, under several "
            "retrain policies side by side, with the real training step and the real gate: what would each have cost, "
            "and how good would the predictions have been? Nothing that serves is touched.\n\nWakes: this button."
        ),
        tags=[TAG, "monitoring", model.task],
        parameters={"model": name},
    )


# ── as the server has it ──────────────────────────────────────────────────────────────────────────


def _ensure(wanted: Deployment) -> tuple[str, str | None]:
    """Make or mend one deployment; gives its id, and what was done."""
    flow_id = api.call("/flows/", {"name": wanted.flow})["id"]
    body = _body(wanted)
    try:
        there = api.call(f"/deployments/name/{wanted.title}")
    except api.PrefectNotFound:
        cron = {"cron": wanted.cron, "timezone": "UTC"}
        schedule = {"schedule": cron, "active": True, "slug": "reconcile", "parameters": wanted.woken_with}
        schedules = [schedule] if wanted.cron else []
        made = api.call("/deployments/", {**body, "name": wanted.name, "flow_id": flow_id, "schedules": schedules})
        return made["id"], f"deployment {wanted.title} made" + (f", schedule {wanted.cron}" if wanted.cron else "")
    differs = {key: value for key, value in _with_edits(body, there).items() if _shown(there, key) != value}
    if not differs:
        return there["id"], None
    api.call(f"/deployments/{there['id']}", differs, method="PATCH")
    return there["id"], f"deployment {wanted.title} updated: {', '.join(sorted(differs))}"


def _body(wanted: Deployment) -> dict[str, Any]:
    aside = f" {flow_run.ASIDE}" if wanted.flow == "rollout" else ""
    return {
        "description": wanted.description,
        "tags": wanted.tags,
        "parameters": wanted.parameters,
        "parameter_openapi_schema": _form(wanted),
        "enforce_parameter_schema": True,
        "work_pool_name": POOL,
        "entrypoint": f"flows/{wanted.flow}.py:{wanted.flow}",
        "path": str(settings.ROOT),
        "job_variables": {
            "working_dir": str(settings.ROOT),
            "command": f"{shlex.quote(sys.executable)} -m deployments.orchestration.flow_run{aside}",
            "stream_output": False,
        },
        "concurrency_limit": 1,
        "concurrency_options": CONCURRENCY,
    }


def _with_edits(body: dict[str, Any], there: dict[str, Any]) -> dict[str, Any]:
    """What a person has edited in the UI stays: parameters (but which model it is), further tags and job variables."""
    takes = body["parameter_openapi_schema"]["properties"].keys() - {"model"}
    edited = {name: value for name, value in there["parameters"].items() if name in takes}
    return {
        **body,
        "parameters": {**body["parameters"], **edited},
        "tags": [*body["tags"], *(tag for tag in there["tags"] if tag not in body["tags"])],
        "job_variables": {**there["job_variables"], **body["job_variables"]},
    }


def _shown(there: dict[str, Any], key: str) -> Any:
    """A field as it was sent: the server shows the limit elsewhere than where it takes it."""
    if key == "concurrency_limit":
        return (there.get("global_concurrency_limit") or {}).get("limit")
    return there.get(key)


def _form(wanted: Deployment) -> dict[str, Any]:
    """The flow's signature as the form of the UI; the model is the deployment's own."""
    from importlib import import_module

    from prefect.utilities.callables import parameter_schema

    schema = parameter_schema(getattr(import_module(f"flows.{wanted.flow}"), wanted.flow)).model_dump()
    if "model" in schema["properties"]:
        schema["properties"]["model"] |= {"enum": [wanted.name], "default": wanted.name}
    return dict(schema)


def _work_pool() -> None:
    if not _has_work_pool():
        from prefect.workers.process import ProcessWorker

        template = ProcessWorker.get_default_base_job_template()
        about = "Flow runs as processes of this machine, in the checkout that `make up` was started in"
        body = {"name": POOL, "type": "process", "description": about, "base_job_template": template}
        api.call("/work_pools/", body)


def _has_work_pool() -> bool:
    try:
        api.call(f"/work_pools/{POOL}")
    except api.PrefectNotFound:
        return False
    return True


def _registered() -> dict[str, str]:
    """Title → id of the deployments that this module made."""
    tagged = api.call("/deployments/filter", {"deployments": {"tags": {"all_": [TAG]}}})
    flows = {one["id"]: one["name"] for one in api.call("/flows/filter", {})}
    return {f"{flows.get(one['flow_id'])}/{one['name']}": one["id"] for one in tagged}


def _remove(deployments: Mapping[str, str]) -> list[str]:
    for id_ in deployments.values():
        api.call(f"/deployments/{id_}", method="DELETE")
    return [f"deployment {title} removed: {_why_gone(title)}" for title in deployments]


def _why_gone(title: str) -> str:
    """A flow may be gone with an update of this checkout, as `deploy`, which is `rollout` now."""
    flow = title.partition("/")[0]
    return "params.yaml has no such model" if (settings.ROOT / "flows" / f"{flow}.py").is_file() else "no such flow"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
