"""Rollout: the champion becomes the live release; a new one is tried beside it, watched, and withdrawn if it fails."""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Callable
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
from tasks.release.registry import champion_lookup, desired_state
from tasks.release.rollout import router_client

if TYPE_CHECKING:
    from tasks.release.rollout.report import Story
    from tasks.release.rollout.stages import Outcome, Rollout


@flow(name="rollout", flow_run_name="rollout/{model}", description=__doc__)
def rollout(
    model: str,
    target: Literal["local", "kubernetes"] = "local",
    manifests: str | None = None,
    branch: str | None = None,
    remote: str | None = None,
) -> State[Any]:
    """Have the registry's champion serve.

    Args:
        model: a name below `models` in params.yaml.
        target: `local`: the router of this machine; `kubernetes`: what Git says a cluster should run.
        manifests: kubernetes: the folder, in a Git clone, that holds <model>.yaml.
        branch: kubernetes: which branch to commit to; none: the one that is checked out there.
        remote: kubernetes: where to push to; none: nowhere.
    """
    said = params.load()
    tell = get_run_logger().info
    for gone in desired_state.forget(said.models):
        tell(f"{gone} is not in params.yaml any more: it serves no longer")
    section = said.model(model)
    with exclusive(f"rollout-{model}"):
        if answered := triggers.coalesce_waiting():
            tell(f"{answered} more wakes are answered by this run")
        if target == "local" and (failed := desired_state.unfinished(model)):
            tell(f"a withdrawal of {failed.release} was begun and not ended: {failed.why}")
            return _withdrawn(model, failed)
        as_task(_tidy, "compact the prediction log")(model, section.serving)
        _forget_unused(model, said.keep_days)
        if target == "kubernetes":
            return _to_git(model, manifests, branch, remote)
        with router_client.RouterClient(patience=section.rollout.start_s) as router:
            while (state := _once(model, section.rollout, router)) is None:
                pass
            return state


def _tidy(model: str, limits: params.Serving) -> None:
    """What is no longer written to becomes Parquet; what is too old, or too much, goes."""
    from tasks.prediction_log import prediction_log

    try:
        get_run_logger().info(str(prediction_log.compact(model)))
    finally:  # also where the disk is full: this makes room
        gone = prediction_log.sweep(model, limits.log_days, int(limits.log_gb * 1e9))
    if too_much := [name for name in gone if name.endswith(".parquet")]:
        get_run_logger().warning(
            f"the prediction log is larger than serving.log_gb in params.yaml ({limits.log_gb:g} GB): "
            f"{len(too_much)} files were forgotten, from {too_much[0]} to {too_much[-1]}"
        )


def _forget_unused(model: str, days: float) -> None:
    """The Bentos of candidates that neither serve nor are tried: they are made again when one is rolled back to."""
    from tasks.release.package import package

    now = desired_state.read(model)
    kept = {one.candidate for one in (now.live, now.previous, now.challenger) if one}
    if gone := package.forget_unused(model, kept, days):
        get_run_logger().info(f"{len(gone)} Bentos that nobody used for {days:g} days are gone: {', '.join(gone)}")


def _once(model: str, limits: params.Rollout, router: router_client.RouterClient) -> State[Any] | None:
    """One look at what should be, and the difference; None when that has changed meanwhile."""
    now, wanted = desired_state.read(model), champion_lookup.champion(model)
    restored = [one for one in (now.live, now.previous) if one and _restored(model, one)]
    if wanted is None or (now.live and now.live.candidate == wanted.candidate):
        return _as_it_is(model, now, wanted, router, patient=now.live in restored)
    if now.share is not None or (now.challenger and now.challenger.candidate != wanted.candidate):
        kept = now.challenger and now.challenger.candidate == wanted.candidate
        get_run_logger().info(f"a killed rollout has left {now.challenger} as a challenger: nobody watches it")
        desired_state.write(model, now.with_canary(None) if kept else now.without_challenger())
    return _roll(model, wanted, limits, router)


def _restored(model: str, one: desired_state.ReleaseRef) -> bool:
    """Whether the files of a release that serves, or is kept warm, had to be brought again."""
    from tasks.release.rollout.restore import restore

    log = get_run_logger()
    try:
        is_restored = restore(model, one)
    except (DataMissing, ModelFileRefused) as error:  # it may serve on as long as its process lives
        log.warning(f"{one} would not start again: {error}")
        return False
    if is_restored:
        log.warning(f"the Bento of {one} was lost or changed on this machine: it is brought from the registry again")
    return is_restored


def _as_it_is(
    model: str,
    now: desired_state.DesiredState,
    wanted: desired_state.ReleaseRef | None,
    router: router_client.RouterClient,
    *,
    patient: bool,
) -> State[Any]:
    """Who should serve does: nothing to do but to clear away, and to see that it runs.

    Args:
        model: which.
        now: what should serve.
        wanted: who is champion.
        router: what does it.
        patient: it may not run yet, as its files have just come back.
    """
    if now.challenger:
        desired_state.write(model, now.without_challenger())
    if now.live is None:
        return Completed(message=f"{model} has no champion yet: nothing to serve")
    if not desired_state.live_is_noted(model, now.live):
        desired_state.note(model, now.live, "live")
    why = router.fault(model, now.live.candidate, router.patience if patient else 0)
    if why is not None:
        return Failed(message=f"{now.live} is to serve, but does not run: {why}")
    said = f"{now.live} serves since {now.live.since}"
    if wanted is None:
        return Completed(message=f"the registry names no champion; {said}, and goes on")
    return Completed(message=f"nothing to do: {said}")


# ── a rollout ─────────────────────────────────────────────────────────────────────────────────────


def _roll(
    model: str, one: desired_state.ReleaseRef, limits: params.Rollout, router: router_client.RouterClient
) -> State[Any] | None:
    """Stage by stage, until the release answers everything, or is withdrawn; None when it is not wanted any more."""
    from tasks.release.rollout import stages
    from tasks.release.rollout.report import Story

    tell = get_run_logger().info
    going = stages.Rollout(model, one, limits, router, tell)
    story = Story(model, one, going.live)
    way, why = stages.way(model, one)
    tell(f"{one} is champion and is to serve; {f'{story.champion} does' if story.champion else 'nobody does yet'}")
    try:
        for name, stage, ways in _STAGES:
            step = getattr(stages, stage) if way in ways else _skip(why)
            if (outcome := _run(story, name, going, step)).passed is False:
                return _give_up(story, outcome)
    except stages.Superseded as error:
        tell(f"{one} is no longer wanted: {error}")
        desired_state.write(model, desired_state.read(model).without_challenger())
        return None
    before = f", and {story.champion} no longer" if story.champion else ""
    story.end = f"{one} serves{before}" + (f"; {why}" if way != "new" else "")
    _show(story)
    return Completed(message=story.end)


_EVERY = {"first", "new", "again", "back"}
_STAGES = (
    ("fetch the release and check its hash", "bring", _EVERY),
    ("warm it beside who serves", "warm", _EVERY),
    ("ask its golden rows", "golden", {"first", "new", "again"}),
    ("replay what production has asked", "replay", {"new"}),
    ("give it a share and watch", "bake", {"new"}),
    ("give it everything", "go_live", _EVERY),
)
"""Name, function in tasks/release/rollout/stages.py, and which ways lead through it."""


def _skip(why: str) -> Callable[[Rollout], Outcome]:
    from tasks.release.rollout.stages import Outcome

    return lambda _: Outcome(None, f"skipped: {why}")


def _run(story: Story, name: str, going: Rollout, step: Callable[[Rollout], Outcome]) -> Outcome:
    """A stage as a Prefect task, whose state says what it found."""
    from tasks.release.rollout.report import Told
    from tasks.release.rollout.stages import Superseded

    found: list[Outcome] = []
    superseded: list[Superseded] = []

    def stage() -> State[Any]:
        begin = time.monotonic()
        try:
            outcome = step(going)
        except Superseded as error:
            superseded.append(error)
            return Completed(name="Superseded", message=str(error))
        found.append(outcome)
        story.stages.append(Told(name, outcome, time.monotonic() - begin))
        going.tell(f"{name}: {outcome.said}")
        if outcome.passed is False:
            return Failed(message=outcome.said)
        return Completed(name="Completed" if outcome.passed else "Skipped", message=outcome.said)

    state = as_task(stage, name)(return_state=True)
    if superseded:
        raise superseded[0]
    return found[0] if found else state.result()  # what it raised is raised again


# ── a release that fails ──────────────────────────────────────────────────────────────────────────


def _give_up(story: Story, outcome: Outcome) -> State[Any]:
    """Write down what is to be done, and do it: whoever comes after a kill ends it."""
    one, serves = story.challenger, story.champion
    why = " ".join(f"{story.stages[-1].name}: {outcome.said}".split())
    failed = desired_state.Failed(
        one.candidate, one.version, why, desired_state.now(), serves.candidate if serves else None
    )
    desired_state.begin_withdrawal(story.model, failed)
    state = _withdrawn(story.model, failed, tell_page=False)
    story.end = state.message or why
    _show(story)
    return state


def _withdrawn(model: str, failed: desired_state.Failed, tell_page: bool = True) -> State[Any]:
    """Each of these may have been done already, and is then nothing. First of all it gets no more requests."""
    as_task(_take_back, "take its requests away")(model)
    live = desired_state.read(model).live
    on = f"; {live} serves on" if live else "; nobody serves"
    refused = as_task(_withdraw, "withdraw it in the registry", retries=3)(model, failed)
    if refused:  # it stays champion, as nobody else can be: that is for a person
        name, said = "Stuck", refused
    else:
        name, said = "Withdrawn", f"{failed.release} is withdrawn: {failed.why}{on}"
        desired_state.note(model, failed.release, "withdrawn", failed.why)
    as_task(events.withdrawn, "tell someone", retries=3)(model, failed, said)
    desired_state.end_withdrawal(model)
    get_run_logger().error(said)
    if tell_page:
        head = f"# ✗ {model}: {failed.release} withdrawn"
        _page(model, f"{head}\n\n{said}.\n\nThe run that tried it was killed before it told more.\n", said)
    return Failed(name=name, message=said)


def _take_back(model: str) -> None:
    desired_state.write(model, desired_state.read(model).without_challenger())


def _withdraw(model: str, failed: desired_state.Failed) -> str | None:
    from tasks.release.registry import registry

    try:
        registry.withdraw(model, failed.version, failed.why, failed.serves)
    except NotPromoted as error:
        return str(error)
    return None


# ── told ──────────────────────────────────────────────────────────────────────────────────────────


def _show(story: Story) -> None:
    from tasks.release.rollout import report

    drawn = ""
    if report.has_picture(story):
        drawn = f"data:image/png;base64,{b64encode(report.picture(story)).decode()}"
    _page(story.model, report.markdown(story, drawn), story.end)


def _page(model: str, text: str, description: str) -> None:
    create_markdown_artifact(key=f"rollout-{model.replace('_', '-')}", markdown=text, description=description[:500])


# ── a cluster ─────────────────────────────────────────────────────────────────────────────────────


def _to_git(model: str, folder: str | None, branch: str | None, remote: str | None) -> State[Any]:
    """Have Git say that the champion is to run: whoever follows that branch does the rest."""
    from tasks.release.cluster import manifests
    from tasks.release.registry import verdict_ledger

    wanted = champion_lookup.champion(model)
    if wanted is None:
        return Completed(message=f"{model} has no champion yet: nothing to serve")
    if folder is None:
        raise Mistake("target kubernetes needs `manifests`: the folder, in a Git clone, that holds <model>.yaml")
    roll = as_task(manifests.roll, "commit its tag into the manifest")
    commit = roll(
        model,
        wanted.candidate,
        wanted.version,
        settings.ROOT / Path(folder),
        branch=branch,
        remote=remote,
        about=verdict_ledger.summary(model, wanted.version),
        log=get_run_logger().info,
    )
    return Completed(
        message=f"{wanted}: {f'commit {commit[:12]}' if commit else 'nothing to do, the manifest says so'}"
    )
