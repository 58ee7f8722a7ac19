"""Decision whether to train: asked of the retrain policy (tasks/monitoring/retrain_policy.py), and kept.

    the journal                           every decision with the facts it was made from, «no» as well
    var/memo/due/<model>.json             a training that a person or an edit asks for, until it has ended
    var/memo/due/<model>.refused.json     why no training was due, and the facts of that answer

A decision is a function of the data, not of the clock: with equal facts it is equal, so only a change of them is asked
about again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tasks.ground import files, outcome_cache, params, paths, settings
from tasks.journal import journal
from tasks.lifecycle import retrain_facts
from tasks.monitoring import retrain_policy
from tasks.monitoring.retrain_policy import Decision
from tasks.release.policy import in_force
from tasks.release.registry import champion_lookup


@dataclass(frozen=True)
class Override:
    """What needs no policy: a person asks, or something was edited. It holds until the training has ended."""

    asked_by: str = ""
    edited: str = ""


def override(model: str, asked_by: str, edited: str) -> Override:
    """The override, with that of a killed run: what it made meanwhile no longer looks edited."""
    before = _kept_override(model)
    now = Override(asked_by or before.asked_by, edited or before.edited)
    if now not in (before, Override()):
        files.write_json(paths.training_override(model), asdict(now))
    return now


def is_requested(model: str, if_due: bool) -> bool:
    """Whether a person asks: now, or in a run that was killed before its end."""
    return not if_due or bool(_kept_override(model).asked_by)


def clear_override(model: str) -> None:
    """The training that was due has ended."""
    paths.training_override(model).unlink(missing_ok=True)


def _kept_override(model: str) -> Override:
    return files.read_state(paths.training_override(model), Override(), lambda value: Override(**value))


def decide(model: str, override: Override) -> Decision:
    """Ask the policy, on the rows as `prepare` has just written them; keep its answer."""
    inputs = _facts_digest(model)  # before they are read: what the monitor finds meanwhile is asked about again
    config = params.load().model(model)
    facts = retrain_facts.gather(model, config, asked_by=override.asked_by, edited=override.edited)
    decision = retrain_policy.decide(facts, config.retrain)
    if (before := last(model)) is None or before["id"] != decision.id:
        in_force.note(model)
        _keep(model, decision.to_dict())
    if not decision.retrain:
        outcome_cache.keep(paths.refused_training(model), inputs, decision.why)
    return decision


def refused(model: str) -> str | None:
    """Why a training was not due at the last decision; None where one of its facts has changed."""
    why: str | None = outcome_cache.recall(paths.refused_training(model), lambda: _facts_digest(model))
    return why


def _facts_digest(model: str) -> str:
    """The identity of what a decision depends on. What was edited is not in it."""
    report, champion = retrain_facts.monitoring_report(model), champion_lookup.champion(model)
    on = {path: files.sha256(settings.ROOT / path) for path in ("data.dvc", "dvc.lock", "params.yaml")}
    findings = {"alarms": report.get("alarms"), "quality": report.get("quality")}
    return files.digest({**on, **findings, "champion": champion.candidate if champion else None})


def hold(model: str, why: str) -> None:
    """Keep that the policy was not asked, and why; once for each reason. What was edited is not asked for."""
    clear_override(model)
    if (before := last(model)) is None or before["why"] != why:
        record = {"id": files.digest(why)[:16], "retrain": False, "why": why, "reasons": [], "state": {}, "policy": {}}
        _keep(model, record)


def _keep(model: str, record: Mapping[str, Any]) -> None:
    what = {name: value for name, value in record.items() if name != "why"}
    journal.append(model, "decision", what, record["why"])


def last(model: str) -> dict[str, Any] | None:
    """The newest decision, as it was written down."""
    line = journal.last(model, "decision")
    return line.flat if line else None
