"""Edits by hand in MLflow's UI: what was removed of the champion is put back, and who may not serve does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.ground.errors import NeedsApproval, RegistryDamaged
from tasks.release.policy import promotion
from tasks.release.registry import desired_state, promotions, registry, version_approvals
from tasks.release.registry.alias_lines import changing
from tasks.release.registry.mlflow_store import with_retries
from tasks.release.registry.model_state import (
    NOBODY,
    ON_HOLD,
    VERDICT_ID,
    ModelState,
    ModelVersion,
    is_gone,
    read_state,
    set_tags,
)
from tasks.release.registry.tracking import CANDIDATE, DATA_VERSION, finished

if TYPE_CHECKING:
    from mlflow import MlflowClient


@with_retries
def repair(model_name: str) -> list[str]:
    """Put back what a person removed of the champion in MLflow's UI; gives what was done, in words.

    The last promotion, and the live release, say which version is champion. A model that never had one, or whose last
    one was withdrawn without a successor, has none.
    """
    with changing(model_name, "alias") as (client, before):
        done = [words for version in before.versions.values() if (words := _restore_tags(client, version))]
        now = read_state(client, model_name) if done else before
        if now.stored is not None and now.stored.candidate:
            return done
        live = desired_state.read(model_name).live
        last = now.since[-1][1] if now.since else None
        back = now.versions.get(last if last is not None else -1)
        if live and (back is None or not back.candidate) and last != NOBODY:
            back = now.of_candidate(live.candidate) or _version_anew(client, model_name, live.candidate, now)
        if back is None or not back.candidate or back.withdrawn is not None:
            if now.stored is not None:
                raise RegistryDamaged(
                    f"the alias champion of {model_name} names version {now.stored.number}, which is no release of "
                    f"Evergreen. Set it to one that is (evergreen history {model_name})"
                )
            return done
        was = f"named version {now.stored.number}, which is no release," if now.stored else "was gone"
        client.set_registered_model_alias(model_name, "champion", str(back.number))
        promotions.note_since(client, now, back.number)
        return [*done, f"the alias champion of {model_name} {was} in MLflow: {back} has it again"]


def _restore_tags(client: MlflowClient, version: ModelVersion) -> str:
    """Give a version back the tags that name its candidate, which its run has too; in words what was done."""
    if version.candidate or not version.run_id or is_gone(client, version.run_id):
        return ""
    tags = client.get_run(version.run_id).data.tags
    set_tags(client, version, {tag: tags[tag] for tag in (CANDIDATE, DATA_VERSION) if tag in tags})
    return f"version {version.number} of {version.model} had lost its tags: put back" if CANDIDATE in tags else ""


def _version_anew(client: MlflowClient, model_name: str, candidate: str, now: ModelState) -> ModelVersion:
    """A new version of a candidate whose version, or whose whole registered model, was deleted."""
    run = finished(client, model_name, candidate)
    if run is None:
        raise RegistryDamaged(
            f"candidate {candidate} of {model_name} serves, but neither its version nor its run is in MLflow any more. "
            f"It serves on. Restore MLflow's store from a backup (docs/how-to/back-up-and-move.md), or set the alias "
            f"champion to another version (there are: {now.numbers()})"
        )
    return registry.new_version(client, model_name, candidate, run)


@with_retries
def put_back(model_name: str) -> str | None:
    """Take the alias from a champion that never served and that the policy does not let serve; gives what was done.

    It goes to the live release; where none is live, to whoever was champion before, if the policy lets that one
    serve; else to nobody. The version waits as challenger.

    Raises:
        PolicyError: the policy cannot be read or computed. Nothing was changed.
    """
    if not promotion.path().exists():
        return None
    with changing(model_name, "alias") as (client, now):
        live = desired_state.read(model_name).live
        chosen = now.champion
        if chosen is None or (live and live.candidate == chosen.candidate) or not (why := _unapproved(client, chosen)):
            return None
        back = now.of_candidate(live.candidate) if live else _champion_before(client, now, chosen)
        back = back if back and back.withdrawn is None else None
        set_tags(client, chosen, {ON_HOLD: why})
        client.set_registered_model_alias(model_name, "challenger", str(chosen.number))
        if back:
            client.set_registered_model_alias(model_name, "champion", str(back.number))
        else:
            client.delete_registered_model_alias(model_name, "champion")
        promotions.note_since(client, now, back.number if back else NOBODY)
        return f"{chosen} was champion and does not serve: {why.rstrip('.')}; {back or 'nobody'} is champion again"


def _unapproved(client: MlflowClient, version: ModelVersion) -> str | None:
    """Why the policy does not let a version serve that was not live before; None where it may serve."""
    if desired_state.has_served(version.model, version.candidate):
        return None
    try:
        version_approvals.refuse_unapproved(client, version, version.tags.get(VERDICT_ID, ""))
    except NeedsApproval as error:
        return str(error)
    return None


def _champion_before(client: MlflowClient, now: ModelState, chosen: ModelVersion) -> ModelVersion | None:
    """Who was champion before `chosen`, if the policy lets that one serve."""
    numbers = [number for _, number in now.since if number != chosen.number]
    before = now.versions.get(numbers[-1]) if numbers else None
    return before if before and not _unapproved(client, before) else None
