"""Who is champion: promotion, rollback and withdrawal, as reconciling functions.

Every function may be called again, after it ended or was killed between any two of its writes, and ends in the same
state. What one machine does to one model happens one after the other (`files.lock`).

MLflow has no transaction over several aliases, so each change records first what the next steps need, and whoever
comes next reads `ModelState`, which knows the states in between:

    promote    tag new: replaces old → nobody rolled back → alias former = old → alias champion = new → since when
               → drop alias challenger
    rollback   (--to N: alias former = N) → a person rolled back → tag champion: withdrawn → former replaces nobody
               → alias champion = former → since when → drop alias former
    withdraw   alias former = the live release → as rollback; without a live release: tag champion: withdrawn
               → since when → drop alias champion
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tasks.ground import files, settings, uncommitted
from tasks.ground.errors import DataMissing, Mistake, ModelFileRefused, NotPromoted
from tasks.release.package import package
from tasks.release.registry import candidate_outcome, verdict_records, version_approvals, version_files
from tasks.release.registry.alias_lines import changing
from tasks.release.registry.mlflow_store import connect, with_retries
from tasks.release.registry.model_state import (
    NOBODY,
    ON_HOLD,
    PROMOTED_BY,
    REPLACES,
    ROLLED_BACK,
    SINCE,
    UNCOMMITTED,
    VERDICT_ID,
    WITHDRAWN,
    ModelState,
    ModelVersion,
    is_without_files,
    read_state,
    set_tags,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient


@with_retries
def promote(model_name: str, version: int, verdict_id: str) -> ModelVersion:
    """Make a version the champion.

    Raises:
        NotPromoted: it was withdrawn, no recorded verdict promotes it over today's champion, or the policy wants
            approvals that are not there.
        Mistake: there is no such version.
    """
    with changing(model_name, "promotion", verdict=verdict_id) as (client, before):
        now = _finish_change(client, before)
        chosen = now.numbered(version)
        if now.stored != chosen:
            _refuse_without_verdict(client, now, chosen, verdict_id)
            version_approvals.refuse_unapproved(client, chosen, verdict_id)
            old = str(now.stored.number) if now.stored else "none"
            client.set_model_version_tag(model_name, str(version), REPLACES, old)
            client.set_model_version_tag(model_name, str(version), PROMOTED_BY, verdict_id)
            if ROLLED_BACK in now.tags:
                client.delete_registered_model_tag(model_name, ROLLED_BACK)
            if now.stored:
                client.set_registered_model_alias(model_name, "former", old)
            client.set_registered_model_alias(model_name, "champion", str(version))
        note_since(client, now, version)
        if now.aliases.get("challenger") == version:
            client.delete_registered_model_alias(model_name, "challenger")
        if ON_HOLD in chosen.tags:
            client.delete_model_version_tag(model_name, str(version), ON_HOLD)
        return read_state(client, model_name).numbered(version)


def _refuse_without_verdict(client: MlflowClient, now: ModelState, chosen: ModelVersion, verdict_id: str) -> None:
    if chosen.withdrawn is not None:
        raise NotPromoted(
            f"{chosen} was withdrawn ({chosen.withdrawn}): it is not promoted again. "
            f"To bring it back all the same: evergreen rollback {now.model} --to {chosen.number}"
        )
    verdict = verdict_records.read(client, chosen.run_id, verdict_id)
    champion = now.stored.candidate if now.stored else None
    if verdict is None:
        why = f"has no recorded verdict {verdict_id}: it is not promoted. Judge it and record that."
    elif is_without_files(client, chosen):
        why = "is not promoted: its files were removed (keep_days in params.yaml). Train it again"
    elif not verdict.promoted or verdict.challenger != chosen.candidate:
        why = f"is not promoted: {verdict.summary}"
    elif verdict.champion != champion:
        why = (
            f"is not promoted: verdict {verdict_id} compares it with {verdict.champion or 'no champion'}, but the "
            f"champion is {champion or 'nobody'} now. Judge it again."
        )
    else:
        return
    raise NotPromoted(f"{chosen} {why}")


@with_retries
def put_on_hold(model_name: str, version: int, why: str, made_of: str = "") -> None:
    """Record that a version, though its verdict promotes it, waits for a person's `promote_by_hand`."""
    with connect(alone_for=model_name) as client:
        waiting = read_state(client, model_name).numbered(version)
        set_tags(client, waiting, {tag: value for tag, value in ((ON_HOLD, why), (UNCOMMITTED, made_of)) if value})


@with_retries
def promote_by_hand(model_name: str, version: int | None = None) -> ModelVersion:
    """Promote, for a person, a version whose verdict allows it; by default the challenger.

    Raises:
        Mistake: there is no such version, or no challenger.
        NotPromoted: no recorded verdict promotes it over today's champion.
    """
    with connect() as client:
        now = read_state(client, model_name)
    number = now.aliases.get("challenger") if version is None else version
    if number is None:
        raise Mistake(f"{model_name} has no challenger: name a version (evergreen history {model_name})")
    chosen = now.numbered(number)
    if chosen == now.stored:
        return chosen
    if VERDICT_ID not in chosen.tags:
        raise NotPromoted(f"{chosen} was not judged yet: evergreen train {model_name} again")
    promoted = promote(model_name, number, chosen.tags[VERDICT_ID])
    candidate_outcome.promoted_by_hand(model_name, promoted.candidate, f"{promoted} is champion, promoted by hand")
    return promoted


@with_retries
def rolled_back(model_name: str) -> str | None:
    """Why nothing is promoted automatically: a person rolled back, and neither data nor code have changed since."""
    with connect() as client:
        tag = read_state(client, model_name).tags.get(ROLLED_BACK)
    if not tag:
        return None
    try:
        at, data, code = json.loads(tag)
    except (ValueError, TypeError):
        return f"{model_name} was rolled back, and its tag {ROLLED_BACK} was edited in MLflow: delete it there to go on"
    if (data, code) != _data_and_code():
        return None
    return f"a person rolled back on {at}, and since then neither data nor code have changed"


def _data_and_code() -> tuple[str, str]:
    pointer = settings.ROOT / "data.dvc"
    return files.md5(pointer) if pointer.exists() else "", uncommitted.code()


# ── rollback and withdrawal ───────────────────────────────────────────────────────────────────────


@with_retries
def rollback(model_name: str, to: int | None = None, reason: str = "") -> str:
    """Withdraw the champion and give its place to the previous one, or to the version `to`; gives what was done.

    Called again it does not flip back, and goes no further: for that the version has to be named.

    Raises:
        Mistake: there is no version `to`.
        NotPromoted: the release that would come back is lost or was changed. Nothing was changed.
    """
    with changing(model_name, "rollback") as (client, before):
        _refuse_what_is_lost(before, before.previous if to is None else before.numbered(to))
        now = before if to is None else _aim(client, before, to)
        gone, back = now.stored, now.previous
        if gone is None or back is None or gone.number == to:
            return _nothing_to_roll_back(_finish_change(client, now), to)
        if gone.withdrawn is None:
            at = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
            client.set_registered_model_tag(model_name, ROLLED_BACK, json.dumps([at, *_data_and_code()]))
            set_tags(client, gone, {WITHDRAWN: " ".join(reason.split()) or "rolled back"})
        _finish_change(client, read_state(client, model_name))
        return (
            f"{model_name}: version {gone.number} (candidate {gone.candidate}) is withdrawn, version {back.number} "
            f"(candidate {back.candidate}) is champion again"
        )


@with_retries
def withdraw(model_name: str, version: int, reason: str, serves: str | None) -> ModelVersion | None:
    """Withdraw a version that failed its rollout, and give its place back; gives the champion then.

    Where it is not champion any more, somebody has decided meanwhile, and the champion stays. The place goes to the
    candidate that `serves` on: the alias `former` may name another one, when a person has set the alias `champion` by
    hand. None: nothing serves, and there is no champion then.

    Raises:
        Mistake: there is no such version.
        NotPromoted: the candidate that serves on was withdrawn as well. Nothing was changed.
    """
    with changing(model_name, "withdrawal") as (client, now):
        gone, why = now.numbered(version), " ".join(reason.split())
        back = (now.of_candidate(serves) or now.previous) if serves else None
        is_champion = now.stored == gone
        if is_champion and back and back.withdrawn is not None:
            raise NotPromoted(
                f"{gone} fails ({why}), and {back}, which serves on, was itself withdrawn ({back.withdrawn}): neither "
                f"can be champion. Name a version: evergreen rollback {model_name} --to N"
            )
        if is_champion and back and now.aliases.get("former") != back.number:
            client.set_registered_model_alias(model_name, "former", str(back.number))
        set_tags(client, gone, {WITHDRAWN: why})
        if is_champion and back is None:
            note_since(client, now, NOBODY)
            client.delete_registered_model_alias(model_name, "champion")
        return _finish_change(client, read_state(client, model_name)).stored


def _refuse_what_is_lost(now: ModelState, back: ModelVersion | None) -> None:
    """Fetch and check what a rollback needs before anything is withdrawn for it."""
    if back is None or now.stored in (None, back):
        return
    try:
        version_files.fetch_cached(now.model, back)
    except (DataMissing, ModelFileRefused) as error:
        if package.stored(now.model, back.candidate):
            return  # its Bento is here and whole: it can serve, though the gate cannot compare anything with it
        others = now.numbers(back.number, now.stored.number if now.stored else NOBODY)
        further = f". Name another version: --to N (there are {others})" if others != "none" else ""
        raise NotPromoted(
            f"{back} cannot come back: {str(error).rstrip('.')}. Nothing was changed, {now.stored} stays "
            f"champion{further}"
        ) from error


def _aim(client: MlflowClient, now: ModelState, to: int) -> ModelState:
    """Make `to` the version that gets the place, also when it was withdrawn: a person asks for it by name."""
    target = now.numbered(to)
    if now.stored != target and now.aliases.get("former") != to:
        client.set_registered_model_alias(now.model, "former", str(to))
    if target.withdrawn is not None:
        client.delete_model_version_tag(now.model, str(to), WITHDRAWN)
    return read_state(client, now.model)


def _finish_change(client: MlflowClient, now: ModelState) -> ModelState:
    """Do what a killed promotion or rollback left undone; nothing where none was."""
    back = now.champion
    if now.stored is None or back is None:
        return now
    if back != now.stored:
        if REPLACES in back.tags:
            client.delete_model_version_tag(now.model, str(back.number), REPLACES)
        client.set_registered_model_alias(now.model, "champion", str(back.number))
        now = read_state(client, now.model)
    note_since(client, now, back.number)
    if "former" in now.aliases and now.previous is None:
        client.delete_registered_model_alias(now.model, "former")
    if now.aliases.get("challenger") == back.number:
        client.delete_registered_model_alias(now.model, "challenger")
    return read_state(client, now.model)


def note_since(client: MlflowClient, now: ModelState, version: int) -> None:
    """Record since when a version is champion, unless that is the newest record."""
    if not now.since or now.since[-1][1] != version:
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        client.set_registered_model_tag(now.model, f"{SINCE}{at}", str(version))


def _nothing_to_roll_back(now: ModelState, to: int | None) -> str:
    if now.stored is None:
        return f"{now.model} has no champion: nothing to do"
    if to == now.stored.number:
        return f"{now.stored} is champion already: nothing to do"
    others = now.numbers(now.stored.number)
    further = f"; to go further back name the version: --to N (there are {others})" if others != "none" else ""
    came_back = any(v.withdrawn is not None for v in now.versions.values()) and REPLACES not in now.stored.tags
    why = "was rolled back to already" if came_back else "is champion, and there is no former one"
    return f"{now.stored} {why}: nothing to do{further}"
