"""train: the graph is brought up to date; a new candidate is judged against the champion, and promoted or refused."""

from __future__ import annotations

from collections.abc import Callable

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_image_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, State

from tasks import params, settings, steps
from tasks.release import settled
from tasks.training import graph


@flow(name="train", flow_run_name="train/{model}", description=__doc__)
def train(model: str) -> State:
    """Train one model on the newest data version, if anything it is made from has changed.

    Args:
        model: a name below `models` in params.yaml.
    """
    params.load().model(model)
    tell = get_run_logger().info
    pending = graph.pending(model)
    if not pending and (verdict := settled.find(model)):
        return Completed(
            message=f"nothing to do: no input of {model} has changed, and its candidate is judged: {verdict}"
        )
    for stage, reason in pending.items():
        tell(f"{stage} will run: {reason}")
    for outcome in graph.reproduce(model, steps.run, around=_as_task):
        tell(str(outcome))
    return _release(model)


def _release(model: str) -> State:
    """Everything after the graph: each step finds what an earlier run of it left, so all of it may be repeated."""
    from tasks.release import judging, package, registry

    build = settings.BUILD / model
    _world(package.ensure_bento, f"build the Bento of {model}")(model)
    measured = _world(package.measured, "measure the release")(model)
    _world(registry.track, "track the candidate in MLflow", retries=3)(model, build / "release", build, measured)
    version = _world(registry.register, "register the candidate", retries=3)(model, package.candidate(model))
    verdict = _world(judging.judge_candidate, "judge it against the champion")(model)
    _world(registry.record_verdict, "record the verdict", retries=3)(model, version, verdict)
    if verdict.promoted:
        _world(registry.promote, "promote it to champion", retries=3)(model, version, verdict.id)
    settled.write(model, verdict)
    _show(model, verdict)
    return Completed(message=verdict.summary)


def _as_task(stage: str, go: Callable[[], graph.Outcome]) -> graph.Outcome:
    """A stage as a Prefect task; one that is skipped says so as its state."""
    outcomes: list[graph.Outcome] = []

    def reproduce() -> State:
        outcome = go()
        outcomes.append(outcome)
        names = {"unchanged": "Skipped", "restored": "Restored", "ran": "Completed"}
        return Completed(name=names[outcome.how], message=outcome.reason)

    task(reproduce, name=stage, task_run_name=stage, cache_policy=NO_CACHE)()
    return outcomes[0]


def _world(step: Callable, name: str, retries: int = 0) -> Callable:  # type: ignore[type-arg]
    return task(step, name=name, task_run_name=name, retries=retries, retry_delay_seconds=2, cache_policy=NO_CACHE)


def _show(model: str, verdict: object) -> None:
    from base64 import b64encode

    from tasks.release import gate

    assert isinstance(verdict, gate.Verdict)
    for line in verdict.to_text().splitlines():
        get_run_logger().info(line)
    key = model.replace("_", "-")
    create_markdown_artifact(key=f"verdict-{key}", markdown=verdict.to_markdown(), description=verdict.summary)
    picture = b64encode(gate.picture(verdict)).decode()
    create_image_artifact(
        key=f"verdict-picture-{key}", image_url=f"data:image/png;base64,{picture}", description=verdict.summary
    )
