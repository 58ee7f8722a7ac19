"""Verdicts as MLflow keeps them: document, table and picture with the run of their candidate, the result as tags."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tasks.ground.errors import Mistake
from tasks.release.gate.verdict import Verdict
from tasks.release.registry.mlflow_store import connect, read_artifact, with_retries, write_artifacts
from tasks.release.registry.model_state import (
    VERDICT,
    VERDICT_ID,
    VERDICT_SUMMARY,
    ModelState,
    ModelVersion,
    read_state,
    set_tags,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient


@with_retries
def record(model_name: str, version: int, verdict: Verdict) -> None:
    """Keep a verdict with the version it is about: document, table and picture with its run, the result as tags."""
    with connect(alone_for=model_name) as client:
        judged = read_state(client, model_name).numbered(version)
        if verdict.challenger != judged.candidate:
            raise Mistake(f"verdict {verdict.id} is about candidate {verdict.challenger}, not about {judged}")
        recorded = read(client, judged.run_id, verdict.id)
        if recorded is None or recorded.to_json() != verdict.to_json():
            from tasks.release.gate import verdict_chart

            contents = {
                "verdict.md": verdict.to_markdown().encode(),
                "verdict.svg": verdict_chart.picture(verdict),
                "verdict.json": verdict.to_json().encode(),  # the last one: it is what counts
            }
            write_artifacts(client, judged.run_id, contents, to=f"verdicts/{verdict.id}")
        _tag_verdict(client, judged, verdict)


def finish(client: MlflowClient, now: ModelState) -> None:
    """Write the tags that a killed `record` did not write: a verdict whose document is whole counts."""
    for version in now.versions.values():
        if VERDICT not in version.tags and (summary := version.tags.get(VERDICT_SUMMARY)):
            for verdict in _verdicts(client, version.run_id):
                if verdict.summary == summary:
                    _tag_verdict(client, version, verdict)


@with_retries
def of_candidate(model_name: str, candidate: str) -> list[Verdict]:
    """Every recorded verdict on a candidate, in no order."""
    with connect() as client:
        version = read_state(client, model_name).of_candidate(candidate)
        return _verdicts(client, version.run_id) if version else []


def _verdicts(client: MlflowClient, run_id: str) -> list[Verdict]:
    ids = [Path(folder.path).name for folder in client.list_artifacts(run_id, "verdicts")]
    return [verdict for verdict in (read(client, run_id, id_) for id_ in ids) if verdict]


def _tag_verdict(client: MlflowClient, version: ModelVersion, verdict: Verdict) -> None:
    result = "promoted" if verdict.promoted else "refused"
    set_tags(client, version, {VERDICT_SUMMARY: verdict.summary, VERDICT_ID: verdict.id, VERDICT: result})


def read(client: MlflowClient, run_id: str, verdict_id: str) -> Verdict | None:
    """A verdict that is recorded whole with a run."""
    try:
        verdict = Verdict.from_json(read_artifact(client, run_id, f"verdicts/{verdict_id}/verdict.json") or "")
    except ValueError:  # there is none, or a kill left half of it
        return None
    return verdict if verdict.id == verdict_id else None
