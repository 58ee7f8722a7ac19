"""Approvals of a registered version: asked for by policies/promotion.yaml, bound to its verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.ground.errors import Mistake, NeedsApproval, PolicyError, did_you_mean
from tasks.release.gate.verdict import Verdict
from tasks.release.policy import approvals, promotion
from tasks.release.policy.approvals import Approval
from tasks.release.registry import verdict_records
from tasks.release.registry.mlflow_store import connect, with_retries
from tasks.release.registry.model_state import NOBODY, VERDICT_ID, ModelVersion, read_state

if TYPE_CHECKING:
    from mlflow import MlflowClient


def refuse_unapproved(client: MlflowClient, chosen: ModelVersion, verdict_id: str) -> None:
    """Let through what policies/promotion.yaml allows now; everything, where there is no such file."""
    if promotion.path().exists():
        approvals.refuse_without(*_verdict_and_commit(client, chosen, verdict_id))


def _verdict_and_commit(client: MlflowClient, version: ModelVersion, verdict_id: str) -> tuple[Verdict, str]:
    verdict = verdict_records.read(client, version.run_id, verdict_id) if version.run_id and verdict_id else None
    if verdict is None or verdict.challenger != version.candidate or verdict.model != version.model:
        raise NeedsApproval(
            f"{version} has no verdict, and {promotion.NAME} binds approvals to one: evergreen train {version.model}"
        )
    return verdict, client.get_run(version.run_id).data.tags.get("git.commit", "")


@with_retries
def missing_approval(model_name: str, version: int, verdict_id: str) -> str | None:
    """Why the policy does not let a version be promoted now, or cannot be read or computed; None where it does."""
    if not promotion.path().exists():
        return None
    with connect() as client:
        try:
            refuse_unapproved(client, read_state(client, model_name).numbered(version), verdict_id)
        except (NeedsApproval, PolicyError) as error:
            return str(error)
    return None


@with_retries
def approve(model_name: str, candidate: str | None, why: str, *, break_glass: bool = False) -> tuple[int, Approval]:
    """Record the approval of whoever runs this; by default of the challenger. Gives the version too."""
    with connect() as client:
        now = read_state(client, model_name)
        number = now.aliases.get("challenger", NOBODY)
        chosen = now.of_candidate(candidate) if candidate else now.versions.get(number)
        if chosen is None:
            known = [version.candidate for version in now.versions.values()]
            hint = did_you_mean(candidate, known) if candidate else ""
            raise Mistake(f"{model_name} has no {f'candidate {candidate!r}' if candidate else 'challenger'}{hint}")
        verdict, commit = _verdict_and_commit(client, chosen, chosen.tags.get(VERDICT_ID, ""))
    return chosen.number, approvals.approve(verdict, commit, why, break_glass=break_glass)
