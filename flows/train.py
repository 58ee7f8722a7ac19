"""train: the graph is brought up to date; a new candidate is judged against the champion, and promoted or refused."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.prefect_support import api, events, triggers
from flows.prefect_support.as_task import as_task, exclusive
from tasks import steps
from tasks.data import git_sync
from tasks.ground import files, params, paths, settings, uncommitted
from tasks.lifecycle import retrain_facts
from tasks.release.registry import candidate_outcome
from tasks.training import dvc_graph

if TYPE_CHECKING:
    from tasks.release.gate.verdict import Verdict


@flow(name="train", flow_run_name="train/{model}", description=__doc__)
def train(model: str, again: bool = False, if_due: bool = False) -> State[Any]:
    """Train one model on the newest data version, if anything it is made from has changed.

    Args:
        model: a name below `models` in params.yaml.
        again: also when nothing has changed, judge the candidate against who is champion now.
        if_due: of new data, leave it to the retrain policy, as an event and the clock do; without this, a person asks.
            What is in no commit is trained only when a person asks, and promoted by `evergreen promote`.
    """
    said = params.load()
    said.model(model)
    tell = get_run_logger().info
    with exclusive(f"train-{model}"):
        if answered := triggers.coalesce_waiting():
            tell(f"{answered} more wakes are answered by this run")
        pending = dvc_graph.pending(model)
        if not pending and not again and (done := candidate_outcome.find(model)):
            return Completed(message=f"nothing to do: already trained, no stage has an input that changed; {done}")
        asked = retrain_facts.is_requested(model, if_due)
        for stage, reason in pending.items():
            tell(f"{stage} would run: {reason}")
        files.sweep(settings.BUILD / model, paths.bentos(), paths.champions(), paths.judged_candidates(model).parent)
        if why_not := _not_due(model, said, if_due) if pending else None if asked else _held(model, said):
            if not uncommitted.of(model, dvc_graph.made_of(model)):
                _publish(said, f"{model}: not trained: {why_not}")
            _with_rows_come_labels(model)
            return Completed(name="NotDue", message=f"not trained: {why_not}")
        dvc_graph.reproduce(model, steps.run, around=_stage_as_task)
        made_of = dvc_graph.made_of(model)
        on, differing = candidate_outcome.inputs(model), uncommitted.of(model, made_of)
        held = _not_by_itself(said, differing) or (None if asked else _rolled_back(model))
        outcome = _release(model, held, differing)
        if not differing:  # dvc.lock would name what nobody else has
            _publish(said, f"{model}: {outcome}")
        waits = {"made_of": made_of, "uncommitted": differing} if differing else None
        candidate_outcome.keep(model, outcome, on, by=_here(), on_hold=waits)
        retrain_facts.clear_override(model)
        _with_rows_come_labels(model)
        _forget_refused(model, said.keep_days)
    return Completed(message=outcome)


def _forget_refused(model: str, days: float) -> None:
    from tasks.release.registry import retention

    forget = as_task(retention.forget_refused, "remove the files of candidates of long ago", retries=3)
    if gone := forget(model, days):
        get_run_logger().info(f"removed the files of {len(gone)} refused candidates older than {days:g} days")


def _with_rows_come_labels(model: str) -> None:
    """The monitor looks at them when the training is over: beside it, it would take its cores."""
    try:
        triggers.trigger(f"monitor/{model}", {"model": model})
    except triggers.DeploymentPaused as error:
        get_run_logger().info(str(error))


def _held(model: str, said: params.Params) -> str | None:
    """Why nothing is done that nobody asks for; kept in the journal of decisions."""
    why = _not_by_itself(said, uncommitted.of(model, dvc_graph.made_of(model))) or _rolled_back(model)
    if why is None:
        return None
    why = why.replace("<model>", model)
    retrain_facts.hold(model, why, _here())
    return why


def _not_by_itself(said: params.Params, differing: list[str]) -> str | None:
    """Why a candidate needs a person's word to reach production: something of what it is made is in no commit."""
    if not differing or said.git.promote_uncommitted:
        return None
    return f"{uncommitted.in_words(differing)}; commit it, or give the word: {_WORD}"


_WORD = "`evergreen train <model>`, then `evergreen promote <model>`"


def _rolled_back(model: str) -> str | None:
    from tasks.release.registry import registry

    why: str | None = as_task(registry.rolled_back, "was it rolled back?", retries=3)(model)
    return why


def _not_due(model: str, said: params.Params, if_due: bool) -> str | None:
    """Why there is to be no training yet, of data that are new; None where there is to be one."""
    known = retrain_facts.override(model, "" if if_due else "a person", dvc_graph.edited(model))
    if known == retrain_facts.Override() and (
        why := as_task(retrain_facts.refused, "was it asked before?", retries=5)(model)
    ):
        return f"{why} (asked again, and nothing that was asked about has changed)"
    dvc_graph.reproduce(model, steps.run, around=_stage_as_task, until="prepare")
    if not known.asked_by and (why := _held(model, said)):
        return why
    if known == retrain_facts.Override() and not dvc_graph.pending(model):
        return None  # the data changed, and the rows did not
    # before they are read: what the monitor finds meanwhile is asked about by the next wake
    on = as_task(retrain_facts.facts_digest, "see what it depends on", retries=5)(model)
    decision = as_task(retrain_facts.decide, "ask the retrain policy", retries=5)(model, known, _here())
    get_run_logger().info(f"the retrain policy: {decision.why}")
    if decision.retrain:
        return None
    retrain_facts.refuse(model, decision.why, on)
    return str(decision.why)


def _publish(said: params.Params, message: str) -> None:
    if said.git.commit:
        step = as_task(git_sync.publish, "commit data.dvc and dvc.lock, and push them")
        step(said, message, get_run_logger().info)


def _here() -> str:
    return api.run_url(str(flow_run.id)) if flow_run.id else ""


def _release(model: str, held: str | None, differing: list[str]) -> str:
    """From what the graph made to who is champion. Each step finds what an earlier, killed run of it left."""
    from tasks.release.package import package
    from tasks.release.registry import registry, tracking

    build = settings.BUILD / model
    as_task(package.ensure_bento, f"build the Bento of {model}")(model)
    measured = as_task(package.measured, "measure the release")(model)
    run = as_task(tracking.track, "track the candidate in MLflow", retries=3)(model, build / "release", build, measured)
    version = as_task(registry.register, "register the candidate", retries=3)(model, run.candidate)
    for done in as_task(registry.repair, "look whether anything was taken away by hand", retries=3)(model):
        get_run_logger().warning(done)
    champion = registry.champion(model)
    if champion and champion.candidate == version.candidate:
        registry.promote(model, version.number, "")  # finishes what a killed run began
        return f"{version} is champion"
    if version.withdrawn is not None:
        return f"{version} was withdrawn ({version.withdrawn}) and is not promoted again"
    return _judged(model, version.number, held, differing)


def _judged(model: str, version: int, held: str | None, differing: list[str]) -> str:
    """Judge the candidate against who is champion now, record why, and promote it if it may be."""
    from tasks.release import comparison
    from tasks.release.registry import registry, verdict_ledger

    verdict: Verdict = as_task(comparison.judge_candidate, "judge it against the champion")(model)
    as_task(registry.record_verdict, "record the verdict", retries=3)(model, version, verdict)
    held = held.replace("<model>", model) if held and verdict.promoted else ""
    verdict_ledger.keep(model, version, verdict, run=_here(), on_hold=held)
    if held or differing:
        of = ", ".join(differing)
        as_task(registry.put_on_hold, "have it wait for a person's word", retries=3)(model, version, held, of)
    if verdict.promoted and not held:
        as_task(registry.promote, "promote it to champion", retries=3)(model, version, verdict.id)
        events.champion_changed(model, version, verdict.id)  # triggers rollout
    _show(model, verdict, held)
    return f"{verdict.summary}; not promoted: {held}" if held else verdict.summary


def _stage_as_task(stage: str, go: Callable[[], dvc_graph.StageOutcome]) -> dvc_graph.StageOutcome:
    """A stage as a Prefect task; one that is skipped says so as its state."""
    if stage.endswith(".dvc"):  # the data: looked at, not made
        return go()
    outcomes: list[dvc_graph.StageOutcome] = []
    tell = get_run_logger().info

    def reproduce() -> State[Any]:
        outcome = go()
        outcomes.append(outcome)
        tell(str(outcome))
        names = {"unchanged": "Skipped", "restored": "Restored", "ran": "Completed"}
        return Completed(name=names[outcome.how], message=outcome.reason)

    as_task(reproduce, stage)()
    return outcomes[0]


def _show(model: str, verdict: Verdict, held: str) -> None:
    from tasks.release.gate import verdict_chart

    for line in [*verdict.to_text().splitlines(), *([f"not promoted: {held}"] if held else [])]:
        get_run_logger().info(line)
    drawn = f"![the verdict](data:image/svg+xml;base64,{b64encode(verdict_chart.picture(verdict)).decode()})"
    said, table, checks = verdict.to_markdown().partition("\n|")
    waits = f"**Not promoted: {held}**\n\n" if held else ""
    create_markdown_artifact(  # one page: an image artifact shows its whole address as well
        key=f"verdict-{model.replace('_', '-')}",
        markdown=f"{said}\n{waits}{drawn}\n{table}{checks}",
        description=verdict.summary,
    )
