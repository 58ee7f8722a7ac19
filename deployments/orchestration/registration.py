"""Reconciler of Prefect's deployments: `ingest`, and every other flow for each model of params.yaml.

Registering again changes only what differs. A schedule belongs to Prefect once it is made: whoever edits or pauses one
in the UI keeps that (docs/decisions/schedules.md). Models that are gone lose their deployments.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from typing import Any

from deployments.orchestration import automations, flow_run
from deployments.orchestration.work_pool import POOL, SERVING
from flows.prefect_support import announcements, api, events
from tasks.ground import addresses, exit_codes, files, leases, params, paths, settings

TAG = "evergreen"  # marks what this module made, and so may remove
OURS = {"tags": {"all_": [TAG]}}  # the API's filter for it

CONCURRENCY = {"collision_strategy": "ENQUEUE", "grace_period_seconds": 900}
"""A run that comes while another is at work waits, as that one may have looked already. A run keeps its place this long
until its process has started: on a busy machine that takes minutes, and Prefect would end a run that has lost its place
(docs/decisions/triggers.md). Of one that gets no process at all, crash_recovery.py frees the place sooner."""


NEED_ROUTER = ("rollout", "monitor")
"""Flows that speak to a router, or read what its replicas have logged, on their own machine."""


@dataclass(frozen=True)
class Deployment:
    """A deployment as it should be."""

    flow: str
    name: str
    description: str
    tags: list[str]
    cron: str | None = None  # the schedule that it is made with, in UTC
    trigger: dict[str, Any] | None = None  # the event trigger of the automation that runs it
    parameters: dict[str, Any] = field(default_factory=dict)  # what the button of the UI starts it with
    automatic: dict[str, Any] = field(default_factory=dict)  # what the schedule and the automation change of them

    @property
    def title(self) -> str:
        """As Prefect writes it: flow/deployment."""
        return f"{self.flow}/{self.name}"


MODEL_FLOWS = (
    Deployment(
        "train",
        "",
        "Trains `{name}` on the newest data version if anything it is made from has changed, compares it with the "
        "champion on the same holdout rows (rule: {gate.rule} in {gate.loss}), and promotes or refuses it.\n\n"
        "Triggers: a new data version of {datasets}, and the schedule (which also finds an edited `params.yaml` or "
        "code); upon new data these ask the retrain policy first. This button does not ask.",
        tags=["training"],
        cron="5-59/15 * * * *",
        parameters={"again": False, "if_due": False},
        automatic={"if_due": True},
    ),
    Deployment(
        "rollout",
        "",
        "Makes the registry's champion of `{name}` the live release. A new one is warmed up beside it, answers its "
        "golden rows and the last {rollout.replay} requests, gets {rollout.canary:.0%} of the requests for "
        "{rollout.bake_s:g} s, and then all; one that fails is withdrawn.\n\n"
        "Triggers: a promotion, the schedule (which also finds an alias that was set by hand, and a rollback), this "
        "button.",
        tags=["serving"],
        cron="10-59/15 * * * *",
        parameters={"target": "local"},
    ),
    Deployment(
        "monitor",
        "",
        "Compares the requests to `{name}` since the last run with the training rows, joins the labels that have come, "
        "measures the predictions ({gate.loss}) or estimates how good they are, and opens and closes alarms.\n\n"
        "Triggers: the end of train, as new rows bring labels; the schedule; this button. Nothing new costs nearly "
        "nothing.",
        tags=["monitoring"],
        cron="2-59/15 * * * *",
    ),
    Deployment(
        "predict",
        "",
        "Scores a file, a partition or a bucket prefix with a release of `{name}`, to Parquet: "
        "docs/how-to/score-a-file.md. Started again, it goes on where it ended.\n\nTriggers: this button.",
        tags=["batch"],
    ),
    Deployment(
        "backtest",
        "",
        "Simulates several retrain policies side by side on the history of `{name}`, a decision a week, with the real "
        "training step and the real gate: what would each have cost, and how good would the predictions have been? "
        "Nothing that serves is touched.\n\nTriggers: this button.",
        tags=["monitoring"],
    ),
    Deployment(
        "tune",
        "",
        "Searches better hyper-parameters of `{name}` on folds of its training rows, as `models.{name}.tune` of "
        "`params.yaml` says or as this form does, and proposes an edit: docs/how-to/tune.md. The holdout is not read; "
        "nothing is trained for good, judged or promoted.\n\nTriggers: this button.",
        tags=["training"],
    ),
)
"""Templates of the deployments that each model has: its name and its numbers are put into them."""


def deployments(config: params.Params) -> list[Deployment]:
    """What this checkout wants the server to have."""
    landing = addresses.masked(config.landing)
    ingest = Deployment(
        "ingest",
        "ingest",
        f"Takes in what lies in the landing zone `{landing}`: each partition is validated, and "
        "becomes part of a data version or waits in quarantine. Every model that reads what changed is then trained."
        "\n\nTriggers: a file in the landing zone (`evergreen up` watches it), the event `evergreen.partition.landed`, "
        "the schedule, this button. It looks at the landing zone itself, so one trigger too many costs seconds.",
        tags=[TAG, "data"],
        cron="*/15 * * * *",
        trigger=automations.on_event(events.LANDED, "evergreen.dataset.*"),
    )
    return [ingest, *(_of_model(each, name, model) for name, model in config.models.items() for each in MODEL_FLOWS)]


def _of_model(template: Deployment, name: str, model: params.Model) -> Deployment:
    trigger = None
    if template.flow == "train":
        datasets = {"prefect.resource.id": [f"evergreen.dataset.{dataset}" for dataset in model.datasets]}
        trigger = automations.on_event(events.VERSION, events.DATA, datasets)
    elif template.flow == "rollout":
        trigger = automations.on_event(events.CHAMPION, f"{events.MODEL}.{name}")
    about = template.description.format(
        name=name, datasets=" or ".join(model.datasets), gate=model.gate, rollout=model.rollout
    )
    return replace(
        template,
        name=name,
        description=f"**{model.about}**\n\n{about}",
        tags=[TAG, *template.tags, model.task],
        trigger=trigger,
        parameters={"model": name, **template.parameters},
    )


@exit_codes.command
def main(arguments: list[str] | None = None) -> int:
    """Register; gives the exit code. `--keep`: the deployments of models that are gone stay."""
    for line in deploy(params.load(), keep=arguments == ["--keep"]):
        print(line, flush=True)
    return 0


def deploy(config: params.Params, *, keep: bool = False) -> list[str]:
    """Bring the server's deployments and automations to what this checkout wants; gives a line per change."""
    lines, triggers, wanted = [], {}, deployments(config)
    with leases.hold("deploy"):
        _ensure_work_pool()
        for deployment in wanted:
            id_, change = _ensure(deployment)
            lines += [change] if change else []
            if deployment.trigger:
                parameters = {**deployment.parameters, **deployment.automatic} if deployment.automatic else None
                triggers[deployment.title] = automations.run_deployment(id_, deployment.trigger, parameters)
        if not keep:
            lines += _remove(others(config))
        lines += automations.ensure(triggers, keep=keep)
        files.write_json(paths.registered_deployments(), fingerprint(config))
    return lines or [f"deployments are as they should be: {', '.join(one.title for one in wanted)}"]


# ── compared with the server ──────────────────────────────────────────────────────────────────────


def fingerprint(config: params.Params) -> dict[str, str]:
    """What a registration depends on, and with which server it is."""
    wanted = [asdict(deployment) for deployment in deployments(config)]
    return {"wanted": files.digest([wanted, automations.notify_url()]), "api": announcements.server_digest()}


def is_registered(config: params.Params) -> bool:
    """Whether the last registration was of the same; what has changed on the server since then, `lacking` sees."""
    return files.read_state(paths.registered_deployments(), dict[str, str]()) == fingerprint(config)


def lacking(config: params.Params) -> list[str]:
    """What the server lacks: the work pool, deployments, automations."""
    titles, names = registered(), {automation["name"] for automation in automations.registered()}
    missing = [] if _has_work_pool() else [f"work pool {POOL}"]
    wanted = deployments(config)
    missing += [f"deployment {deployment.title}" for deployment in wanted if deployment.title not in titles]
    triggers = [automations.name_of(deployment.title) for deployment in wanted if deployment.trigger]
    return missing + [f"automation «{name}»" for name in triggers if name not in names]


def others(config: params.Params) -> dict[str, str]:
    """Title → id of the deployments whose model or flow is gone: every run of theirs would fail."""
    wanted = {deployment.title for deployment in deployments(config)}
    return {title: deployment["id"] for title, deployment in registered().items() if title not in wanted}


def registered() -> dict[str, dict[str, Any]]:
    """Title → deployment of this project, as the server has it."""
    deployed = api.call("/deployments/filter", {"deployments": OURS})  # first: each of them has a flow by then
    flows = {flow["id"]: flow["name"] for flow in api.call("/flows/filter", {})}
    return {f"{flows.get(deployment['flow_id'])}/{deployment['name']}": deployment for deployment in deployed}


def _ensure(wanted: Deployment) -> tuple[str, str | None]:
    """Create or update a deployment; gives its id, and what was done."""
    flow_id = api.call("/flows/", {"name": wanted.flow})["id"]
    body = _body(wanted)
    try:
        existing = api.call(f"/deployments/name/{wanted.title}")
    except api.PrefectNotFound:
        cron = {"cron": wanted.cron, "timezone": "UTC"}
        schedule = {"schedule": cron, "active": True, "slug": "reconcile", "parameters": wanted.automatic}
        new = {"name": wanted.name, "flow_id": flow_id, "schedules": [schedule] if wanted.cron else []}
        created = api.call("/deployments/", {**body, **new})
        return created["id"], f"deployment {wanted.title} made" + (f", schedule {wanted.cron}" if wanted.cron else "")
    changes = {key: value for key, value in _with_edits(body, existing).items() if _field(existing, key) != value}
    if not changes:
        return existing["id"], None
    if (
        "work_pool_name" in changes
    ):  # a pool that was deleted: without the queue's name the server takes the default one
        changes["work_queue_name"] = body["work_queue_name"]
    api.call(f"/deployments/{existing['id']}", changes, method="PATCH")
    return existing["id"], f"deployment {wanted.title} updated: {', '.join(sorted(changes))}"


def _body(wanted: Deployment) -> dict[str, Any]:
    aside = f" {flow_run.ASIDE}" if wanted.flow == "rollout" else ""
    return {
        "description": wanted.description,
        "tags": wanted.tags,
        "parameters": wanted.parameters,
        "parameter_openapi_schema": _form(wanted),
        "enforce_parameter_schema": True,
        "work_pool_name": POOL,
        "work_queue_name": SERVING if wanted.flow in NEED_ROUTER else "default",
        "entrypoint": f"flows/{wanted.flow}.py:{wanted.flow}",
        "path": ".",  # of the worker, which stands in its checkout: each machine may have it elsewhere
        "job_variables": {
            "working_dir": ".",
            "command": f"python -m deployments.orchestration.flow_run{aside}",
            "stream_output": False,
        },
        "concurrency_limit": 1,
        "concurrency_options": CONCURRENCY,
    }


def _with_edits(body: dict[str, Any], existing: dict[str, Any]) -> dict[str, Any]:
    """The body with what a person added in the UI: parameters other than `model`, further tags and job variables."""
    takes = body["parameter_openapi_schema"]["properties"].keys() - {"model"}
    edited = {name: value for name, value in existing["parameters"].items() if name in takes}
    return {
        **body,
        "parameters": {**body["parameters"], **edited},
        "tags": [*body["tags"], *(tag for tag in existing["tags"] if tag not in body["tags"])],
        "job_variables": {**existing["job_variables"], **body["job_variables"]},
    }


def _field(existing: dict[str, Any], key: str) -> Any:
    """A field as it was sent: the server shows the limit elsewhere than where it takes it."""
    if key == "concurrency_limit":
        return (existing.get("global_concurrency_limit") or {}).get("limit")
    return existing.get(key)


def _form(wanted: Deployment) -> dict[str, Any]:
    """The flow's signature as the form of the UI; a model's deployment offers that model only."""
    from prefect.utilities.callables import parameter_schema

    schema = parameter_schema(getattr(import_module(f"flows.{wanted.flow}"), wanted.flow)).model_dump()
    if "model" in schema["properties"]:
        schema["properties"]["model"] |= {"enum": [wanted.name], "default": wanted.name}
    return dict(schema)


def _ensure_work_pool() -> None:
    if not _has_work_pool():
        from prefect.workers.process import ProcessWorker

        template = ProcessWorker.get_default_base_job_template()
        about = "Flow runs as processes of this machine, in the checkout that `evergreen up` was started in"
        body = {"name": POOL, "type": "process", "description": about, "base_job_template": template}
        api.call("/work_pools/", body)


def _has_work_pool() -> bool:
    try:
        api.call(f"/work_pools/{POOL}")
    except api.PrefectNotFound:
        return False
    return True


def _remove(deployments: Mapping[str, str]) -> list[str]:
    lines = []
    for title, id_ in deployments.items():
        api.call(f"/deployments/{id_}", method="DELETE")
        has_flow = (settings.ROOT / "flows" / f"{title.partition('/')[0]}.py").is_file()  # an update may have taken it
        lines.append(f"deployment {title} removed: {'params.yaml has no such model' if has_flow else 'no such flow'}")
    return lines


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
