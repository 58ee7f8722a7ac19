"""train: the graph is brought up to date; a new candidate is judged against the champion, and promoted or refused."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.prefect_support import api, events, triggers
from flows.prefect_support.as_task import as_task, exclusive
from tasks import steps
from tasks.data import dvc_store, git_sync, versions
from tasks.ground import files, params, paths, settings, uncommitted
from tasks.ground.words import many
from tasks.lifecycle import retrain_decision
from tasks.release.registry import candidate_outcome
from tasks.training import dvc_graph

if TYPE_CHECKING:
    from tasks.release.gate.verdict import Verdict


@flow(name="train", flow_run_name="train/{model}", description=__doc__)
def train(model: str, again: bool = False, if_due: bool = False) -> State[Any]:
    """Train one model on the newest data version, if anything it is made from has changed.

    Args:
        model: a name below `models` in params.yaml.
        again: also when nothing has changed, judge the candidate against today's champion.
        if_due: of new data, leave it to the retrain policy, as an event and the clock do; without this, a person asks.
            What is in no commit is trained only when a person asks, and promoted by `evergreen promote`.
    """
    config = params.load()
    config.model(model)
    log = get_run_logger().info
    with exclusive(f"train-{model}"):
        if waiting := triggers.coalesce_waiting():
            log(f"this run answers {many(waiting, 'more trigger')}")
        if git_sync.follow(config):
            _take_over(model)
        pending = dvc_graph.pending(model)
        if not pending and not again and (done := candidate_outcome.find(model)):
            return Completed(message=f"nothing to do: already trained, no stage has an input that changed; {done}")
        is_requested = retrain_decision.is_requested(model, if_due)
        for stage, reason in pending.items():
            log(f"{stage} would run: {reason}")
        files.sweep(settings.BUILD / model, paths.bentos(), paths.champions(), paths.judged_candidates(model).parent)
        why_not = _not_due(model, config, if_due) if pending else None if is_requested else _on_hold(model, config)
        if why_not:
            if not uncommitted.of(model, dvc_graph.made_of(model)):
                _publish(config, f"{model}: not trained: {why_not}")
            _trigger_monitor(model)
            return Completed(name="NotDue", message=f"not trained: {why_not}")
        outcome = _train(model, config, is_requested, will_package=f"package@{model}" in pending)
        retrain_decision.clear_override(model)
        _trigger_monitor(model)
        _forget_refused(model, config.keep_days)
    return Completed(message=outcome)


def _take_over(model: str) -> None:
    """Bring what another worker has committed: its data, and what it has made of them."""
    if versions.behind():
        as_task(versions.catch_up, "bring the data version", retries=3)()
    as_task(dvc_store.fetch_made, "bring what another worker made", retries=3)(model)


def _train(model: str, config: params.Params, is_requested: bool, will_package: bool) -> str:
    """Bring the graph up to date, release what it made, and keep the outcome; gives it in words."""
    from tasks.release.package import package

    with ExitStack() as stack:

        def around(stage: str, go: Callable[[], dvc_graph.StageOutcome]) -> dvc_graph.StageOutcome:
            if will_package and stage == f"train@{model}":
                stack.enter_context(package.trial_ahead(model))
            return _stage_as_task(stage, go)

        dvc_graph.reproduce(model, steps.run, around=around)
    made_of = dvc_graph.made_of(model)
    judged_on, differing = candidate_outcome.inputs(model), uncommitted.of(model, made_of)
    on_hold = _needs_promotion_by_hand(model, config, differing) or (None if is_requested else _rolled_back(model))
    outcome = _release(model, on_hold, differing)
    if not differing:  # else dvc.lock would name what is on this machine only
        _publish(config, f"{model}: {outcome}")
    waits_for = {"made_of": made_of, "uncommitted": differing} if differing else None
    candidate_outcome.keep(model, outcome, judged_on, by=_run_url(), on_hold=waits_for)
    return outcome


# ── is a training due? ────────────────────────────────────────────────────────────────────────────


def _not_due(model: str, config: params.Params, if_due: bool) -> str | None:
    """Why new data are not trained on yet; None where a training is due."""
    override = retrain_decision.override(model, "" if if_due else "a person", dvc_graph.edited(model))
    by_policy = override == retrain_decision.Override()
    if by_policy and (why := as_task(retrain_decision.refused, "was it asked before?", retries=5)(model)):
        return f"{why} (asked again, and nothing that was asked about has changed)"
    dvc_graph.reproduce(model, steps.run, around=_stage_as_task, until="prepare")
    if not override.asked_by and (why := _on_hold(model, config)):
        return why
    if by_policy and not dvc_graph.pending(model):
        return None  # the data changed, and the rows did not
    decision = as_task(retrain_decision.decide, "ask the retrain policy", retries=5)(model, override)
    get_run_logger().info(f"the retrain policy: {decision.why}")
    return None if decision.retrain else str(decision.why)


def _on_hold(model: str, config: params.Params) -> str | None:
    """Why nothing is done that nobody asked for; kept in the journal."""
    differing = uncommitted.of(model, dvc_graph.made_of(model))
    why = _needs_promotion_by_hand(model, config, differing) or _rolled_back(model)
    if why:
        retrain_decision.hold(model, why)
    return why


def _needs_promotion_by_hand(model: str, config: params.Params, differing: list[str]) -> str | None:
    """Why only a person may promote a candidate: something of what it is made is in no commit."""
    if not differing or config.git.promote_uncommitted:
        return None
    by_hand = f"`evergreen train {model}`, then `evergreen promote {model}`"
    return f"{uncommitted.in_words(differing)}; commit it, or approve it: {by_hand}"


def _rolled_back(model: str) -> str | None:
    from tasks.release.registry import promotions

    why: str | None = as_task(promotions.rolled_back, "was it rolled back?", retries=3)(model)
    return why


# ── from a built candidate to the champion ────────────────────────────────────────────────────────


def _release(model: str, on_hold: str | None, differing: list[str]) -> str:
    """Package, track, register and judge what the graph made. Each step continues what a killed run of it left."""
    from tasks.release.package import package
    from tasks.release.registry import alias_repair, promotions, registry, tracking

    build = settings.BUILD / model
    as_task(package.ensure_bento, f"build the Bento of {model}")(model)
    measured = as_task(package.measured, "measure the release")(model)
    run = as_task(tracking.track, "track the candidate in MLflow", retries=3)(model, build / "release", build, measured)
    version = as_task(registry.register, "register the candidate", retries=3)(model, run.candidate)
    for done in as_task(alias_repair.repair, "look whether anything was taken away by hand", retries=3)(model):
        get_run_logger().warning(done)
    champion = registry.champion(model)
    if champion and champion.candidate == version.candidate:
        promotions.promote(model, version.number, "")  # finishes what a killed run began
        return f"{version} is champion"
    if version.withdrawn is not None:
        return f"{version} was withdrawn ({version.withdrawn}) and is not promoted again"
    return _judge(model, version.number, on_hold, differing)


def _judge(model: str, version: int, on_hold: str | None, differing: list[str]) -> str:
    """Judge the candidate against today's champion, record why, and promote it if it may be."""
    from tasks.release import comparison
    from tasks.release.gate import verdicts
    from tasks.release.policy import in_force
    from tasks.release.registry import promotions, verdict_records

    verdict: Verdict = as_task(comparison.judge_candidate, "judge it against the champion")(model)
    as_task(verdict_records.record, "record the verdict", retries=3)(model, version, verdict)
    on_hold = (on_hold or _missing_approval(model, version, verdict.id)) if verdict.promoted else ""
    in_force.note(model)
    verdicts.keep(model, version, verdict, on_hold)
    if on_hold or differing:
        put_on_hold = as_task(promotions.put_on_hold, "have it wait for a person's approval", retries=3)
        put_on_hold(model, version, on_hold, ", ".join(differing))
    if verdict.promoted and not on_hold:
        as_task(promotions.promote, "promote it to champion", retries=3)(model, version, verdict.id)
        events.champion_changed(model, version, verdict.id)  # triggers rollout
    _show(model, verdict, on_hold)
    return f"{verdict.summary}; not promoted: {on_hold}" if on_hold else verdict.summary


def _missing_approval(model: str, version: int, verdict_id: str) -> str:
    from tasks.release.registry import version_approvals

    why: str | None = as_task(version_approvals.missing_approval, "ask the promotion policy", retries=3)(
        model, version, verdict_id
    )
    return why or ""


def _show(model: str, verdict: Verdict, on_hold: str) -> None:
    from tasks.release.gate import verdict_chart

    for line in [*verdict.to_text().splitlines(), *([f"not promoted: {on_hold}"] if on_hold else [])]:
        get_run_logger().info(line)
    image = f"![the verdict](data:image/svg+xml;base64,{b64encode(verdict_chart.picture(verdict)).decode()})"
    head, table, checks = verdict.to_markdown().partition("\n|")
    waits = f"**Not promoted: {on_hold}**\n\n" if on_hold else ""
    create_markdown_artifact(  # one page: an image artifact shows its whole address as well
        key=f"verdict-{model.replace('_', '-')}",
        markdown=f"{head}\n{waits}{image}\n{table}{checks}",
        description=verdict.summary,
    )


# ── tasks and triggers ────────────────────────────────────────────────────────────────────────────


def _stage_as_task(stage: str, go: Callable[[], dvc_graph.StageOutcome]) -> dvc_graph.StageOutcome:
    """A stage as a Prefect task whose state says what became of it."""
    if stage.endswith(".dvc"):  # the data: checked, not made
        return go()
    outcomes: list[dvc_graph.StageOutcome] = []
    log = get_run_logger().info

    def reproduce() -> State[Any]:
        outcome = go()
        outcomes.append(outcome)
        log(str(outcome))
        names = {"unchanged": "Skipped", "restored": "Restored", "ran": "Completed"}
        return Completed(name=names[outcome.how], message=outcome.reason)

    as_task(reproduce, stage)()
    return outcomes[0]


def _publish(config: params.Params, message: str) -> None:
    if config.git.commit:
        step = as_task(git_sync.publish, "commit data.dvc and dvc.lock, and push them")
        step(config, message, get_run_logger().info)


def _trigger_monitor(model: str) -> None:
    """New rows bring labels. The monitor looks at them after the training: beside it, it would take its cores."""
    try:
        triggers.trigger(f"monitor/{model}", {"model": model})
    except triggers.DeploymentPaused as error:
        get_run_logger().info(str(error))


def _forget_refused(model: str, days: float) -> None:
    from tasks.release.registry import retention

    forget = as_task(retention.forget_refused, "remove the files of candidates of long ago", retries=3)
    if gone := forget(model, days):
        get_run_logger().info(f"removed the files of {len(gone)} refused candidates older than {days:g} days")


def _run_url() -> str:
    return api.run_url(str(flow_run.id)) if flow_run.id else ""
