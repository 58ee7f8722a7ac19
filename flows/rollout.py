"""Rollout: the champion becomes the live release; a new one is tried beside it, watched, and withdrawn if it fails."""

from __future__ import annotations

import time
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.prefect_support import events, triggers
from flows.prefect_support.as_task import as_task, exclusive
from tasks.ground import params, settings
from tasks.ground.errors import DataMissing, Mistake, ModelFileRefused, NotPromoted
from tasks.ground.words import many
from tasks.journal import journal
from tasks.release import bento_store
from tasks.release.registry import champion_lookup, desired_state
from tasks.release.registry.desired_state import DesiredState, ReleaseRef
from tasks.release.rollout.router_client import RouterClient

if TYPE_CHECKING:
    from tasks.release.rollout.report import RolloutRecord
    from tasks.release.rollout.stages import ReleaseRollout, Stage, StageResult


@flow(name="rollout", flow_run_name="rollout/{model}", description=__doc__)
def rollout(
    model: str,
    target: Literal["local", "kubernetes"] = "local",
    manifests: str | None = None,
    branch: str | None = None,
    remote: str | None = None,
) -> State[Any]:
    """Make the registry's champion the live release.

    Args:
        model: a name below `models` in params.yaml.
        target: `local`: the router of this machine; `kubernetes`: what Git says a cluster should run.
        manifests: kubernetes: the folder, in a Git clone, that holds <model>.yaml.
        branch: kubernetes: which branch to commit to; none: the one that is checked out there.
        remote: kubernetes: where to push to; none: nowhere.
    """
    config, log = params.load(), get_run_logger().info
    for gone in desired_state.forget(config.models):
        log(f"{gone} is not in params.yaml any more: it is not served any longer")
    section = config.model(model)
    with exclusive(f"rollout-{model}"):
        if answered := triggers.coalesce_waiting():
            log(f"this run answers {many(answered, 'more trigger')}")
        if target == "local" and (failed := desired_state.unfinished(model)):
            log(f"a withdrawal of {failed.release} was begun and not completed: {failed.why}")
            return _withdraw(model, failed)
        as_task(_compact_log, "compact the prediction log")(model, section.serving)
        _forget_unused(model, config.keep_days)
        if target == "kubernetes":
            return _commit_manifest(model, manifests, branch, remote)
        with RouterClient(patience=section.rollout.start_s) as router:
            while (state := _reconcile(model, section.rollout, router)) is None:
                pass
            return state


def _compact_log(model: str, limits: params.Serving) -> None:
    """Closed files of the prediction log become Parquet; what is too old, or too much, is removed."""
    from tasks.prediction_log import prediction_log

    try:
        get_run_logger().info(str(prediction_log.compact(model)))
    finally:  # also where the disk is full: this makes room
        removed = prediction_log.sweep(model, limits.log_days, int(limits.log_gb * 1e9))
    if too_much := [name for name in removed if name.endswith(".parquet")]:
        get_run_logger().warning(
            f"the prediction log is larger than serving.log_gb in params.yaml ({limits.log_gb:g} GB): "
            f"{len(too_much)} files were removed, from {too_much[0]} to {too_much[-1]}"
        )


def _forget_unused(model: str, days: float) -> None:
    """Remove old Bentos that are neither live nor warm: a rollback to one makes it again."""
    from tasks.release.package import package

    kept = {release.candidate for release in desired_state.read(model).releases}
    if removed := package.forget_unused(model, kept, days):
        names = ", ".join(removed)
        get_run_logger().info(f"{len(removed)} Bentos that were not used for {days:g} days are gone: {names}")


def _reconcile(model: str, limits: params.Rollout, router: RouterClient) -> State[Any] | None:
    """Compare the desired state with the champion, and act on the difference; None when that has changed meanwhile."""
    state, champion = desired_state.read(model), champion_lookup.champion(model)
    restored = [release for release in (state.live, state.previous) if release and _restored(model, release)]
    if champion is None or (state.live and state.live.candidate == champion.candidate):
        return _keep(model, state, champion, router, patient=state.live in restored)
    is_tried = state.canary is not None and state.canary.candidate == champion.candidate
    if state.share is not None or (state.canary and not is_tried):
        get_run_logger().info(f"a killed rollout has left {state.canary} as a canary that is not watched")
        desired_state.write(model, state.with_share(None) if is_tried else state.without_canary())
    return _roll_out(model, champion, limits, router)


def _restored(model: str, release: ReleaseRef) -> bool:
    """Whether the files of a release that is live or warm had to be brought again."""
    warn = get_run_logger().warning
    try:
        is_restored = bento_store.ensure(model, release.candidate)
    except (DataMissing, ModelFileRefused) as error:  # it may stay live as long as its process lives
        warn(f"{release} would not start again: {error}")
        return False
    if is_restored:
        warn(f"the Bento of {release} was lost or changed on this machine: it is brought from the registry again")
    return is_restored


def _keep(
    model: str, state: DesiredState, champion: ReleaseRef | None, router: RouterClient, *, patient: bool
) -> State[Any]:
    """The right release is live: clear away what is left, and see that it runs; if `patient`, in a while."""
    if state.canary:
        desired_state.write(model, state.without_canary())
    if state.live is None:
        return Completed(message=f"{model} has no champion yet: nothing to serve")
    desired_state.note_live(model, state.live)
    if why := router.fault(model, state.live.candidate, router.patience if patient else 0):
        return Failed(message=f"{state.live} is to serve, but does not run: {why}")
    serves = f"{state.live} serves since {state.live.since}"
    if champion is None:
        return Completed(message=f"the registry names no champion; {serves}, and stays live")
    return Completed(message=f"nothing to do: {serves}")


# ── a rollout ─────────────────────────────────────────────────────────────────────────────────────

_STAGES = (
    ("fetch the release and check its hash", "fetch", "first new again back"),
    ("warm it up beside the live release", "warm_up", "first new again back"),
    ("ask its golden rows", "ask_golden_rows", "first new again"),
    ("replay logged requests", "replay", "new"),
    ("give it a share and watch", "bake", "new"),
    ("promote it to all requests", "promote", "first new again back"),
)
"""Name, function in tasks/release/rollout/stages.py, and the routes that lead through it."""


def _roll_out(model: str, release: ReleaseRef, limits: params.Rollout, router: RouterClient) -> State[Any] | None:
    """Stage by stage, until the release answers all requests, or is withdrawn; None when it is superseded."""
    from tasks.release.registry import alias_lines
    from tasks.release.rollout import report, stages

    log = get_run_logger().info
    alias_lines.look(model)
    attempt = stages.ReleaseRollout(model, release, limits, router, log)
    record = report.RolloutRecord(model, release, attempt.state.live)
    route, why = stages.choose_route(model, release)
    log(f"{release} is champion and is to go live; {record.live or 'no release'} is live now")
    skipped = stages.StageResult(None, f"skipped: {why}")
    try:
        for name, function, routes in _STAGES:
            step = getattr(stages, function) if route in routes.split() else lambda _: skipped
            if (result := _run_stage(record, name, attempt, step)).passed is False:
                return _give_up(record, result)
    except stages.Superseded as error:
        log(f"{release} is superseded: {error}")
        _end_trial(model)
        return None
    before = f", and {record.live} no longer" if record.live else ""
    record.end = f"{release} serves{before}{f'; {why}' if why else ''}"
    _publish(record)
    return Completed(message=record.end)


def _run_stage(record: RolloutRecord, name: str, attempt: ReleaseRollout, step: Stage) -> StageResult:
    """Run a stage as a Prefect task, whose state has its result; that it is superseded is no failure of the task."""
    from tasks.release.rollout.report import StageRecord
    from tasks.release.rollout.stages import StageResult, Superseded

    ends: list[StageResult | Superseded] = []

    def stage() -> State[Any]:
        begin = time.monotonic()
        try:
            result = step(attempt)
        except Superseded as error:
            ends.append(error)
            return Completed(name="Superseded", message=str(error))
        ends.append(result)
        record.stages.append(StageRecord(name, result, time.monotonic() - begin))
        attempt.log(f"{name}: {result.message}")
        if result.passed is False:
            return Failed(message=result.message)
        return Completed(name="Completed" if result.passed else "Skipped", message=result.message)

    state = as_task(stage, name)(return_state=True)
    end = ends[0] if ends else state.result()  # what the stage raised is raised again
    if isinstance(end, StageResult):
        return end
    raise end


# ── a release that fails ──────────────────────────────────────────────────────────────────────────


def _give_up(record: RolloutRecord, result: StageResult) -> State[Any]:
    """Write down what is to be done, and do it: the run after a kill completes it."""
    release, live = record.release, record.live.candidate if record.live else None
    why = " ".join(f"{record.stages[-1].name}: {result.message}".split())
    failed = desired_state.Failed(release.candidate, release.version, why, journal.now(), live)
    desired_state.begin_withdrawal(record.model, failed)
    state = _withdraw(record.model, failed, with_page=False)
    record.end = state.message or why
    _publish(record)
    return state


def _withdraw(model: str, failed: desired_state.Failed, with_page: bool = True) -> State[Any]:
    """Each step may have been done already, and is then nothing. First of all the release gets no more requests."""
    as_task(_end_trial, "take its requests away")(model)
    live = desired_state.read(model).live
    refused = as_task(_withdraw_version, "withdraw it in the registry", retries=3)(model, failed)
    if refused:  # it stays champion, as no other version can be: that is for a person to decide
        name, message = "Stuck", refused
    else:
        after = f"{live} stays live" if live else "no release is live"
        name, message = "Withdrawn", f"{failed.release} is withdrawn: {failed.why}; {after}"
        desired_state.note(model, failed.release, "withdrawn", failed.why)
    as_task(events.withdrawn, "send a notice", retries=3)(model, failed, message)
    desired_state.end_withdrawal(model)
    get_run_logger().error(message)
    if with_page:
        head = f"# ✗ {model}: {failed.release} withdrawn"
        text = f"{head}\n\n{message}.\n\nThe run that tried it was killed before it reported more.\n"
        _create_page(model, text, message)
    return Failed(name=name, message=message)


def _end_trial(model: str) -> None:
    desired_state.write(model, desired_state.read(model).without_canary())


def _withdraw_version(model: str, failed: desired_state.Failed) -> str | None:
    from tasks.release.registry import promotions

    try:
        promotions.withdraw(model, failed.version, failed.why, failed.serves)
    except NotPromoted as error:
        return str(error)
    return None


# ── its page ──────────────────────────────────────────────────────────────────────────────────────


def _publish(record: RolloutRecord) -> None:
    from tasks.release.rollout import report

    picture = report.picture(record)
    image = f"data:image/png;base64,{b64encode(picture).decode()}" if picture else ""
    _create_page(record.model, report.markdown(record, image), record.end)


def _create_page(model: str, text: str, description: str) -> None:
    create_markdown_artifact(key=f"rollout-{model.replace('_', '-')}", markdown=text, description=description[:500])


# ── a cluster ─────────────────────────────────────────────────────────────────────────────────────


def _commit_manifest(model: str, folder: str | None, branch: str | None, remote: str | None) -> State[Any]:
    """Have Git say that the champion is to run: the cluster follows that branch."""
    from tasks.release.cluster import manifests
    from tasks.release.gate import verdicts

    champion = champion_lookup.champion(model)
    if champion is None:
        return Completed(message=f"{model} has no champion yet: nothing to serve")
    if folder is None:
        raise Mistake("target kubernetes needs `manifests`: the folder, in a Git clone, that holds <model>.yaml")
    commit = as_task(manifests.roll, "commit its tag into the manifest")(
        model,
        champion.candidate,
        champion.version,
        settings.ROOT / Path(folder),
        branch=branch,
        remote=remote,
        about=verdicts.summary(model, champion.version),
        log=get_run_logger().info,
    )
    done = f"commit {commit[:12]}" if commit else "nothing to do, the manifest says so"
    return Completed(message=f"{champion}: {done}")
