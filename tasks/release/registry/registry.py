"""Model registry on MLflow: versions, verdicts and the champion, as reconciling functions.

Every function may be called again, after it ended or was killed between any two of its writes, and ends in the same
state. What one machine does to one model happens one after the other (`files.lock`).

The aliases of a registered model: `champion` serves, `challenger` waits to, `former` gets the place back by a rollback.
MLflow has no transaction over several of them, so each change records first what the next steps need, and whoever
comes next reads `_ModelState`, which knows the states in between:

    promote    tag new: replaces old → nobody rolled back → alias former = old → alias champion = new → since when
               → drop alias challenger
    rollback   (--to N: alias former = N) → a person rolled back → tag champion: withdrawn → former replaces nobody
               → alias champion = former → since when → drop alias former
    withdraw   alias former = the live release → as rollback; without a live release: tag champion: withdrawn
               → since when → drop alias champion
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.ground import files, params, paths, settings, uncommitted
from tasks.ground.errors import (
    DataMissing,
    EvergreenError,
    Mistake,
    ModelFileRefused,
    NeedsApproval,
    NotPromoted,
    PolicyError,
    RegistryDamaged,
    did_you_mean,
)
from tasks.release.gate.verdict import Verdict
from tasks.release.package import package
from tasks.release.policy import approvals, promotion
from tasks.release.policy.approvals import Approval
from tasks.release.registry import candidate_outcome
from tasks.release.registry.mlflow_store import Tolerating, connect, read_artifact, with_retries, write_artifacts
from tasks.release.registry.tracking import (
    CANDIDATE,
    DATA_VERSION,
    EVALUATION_FILES,
    FORGOTTEN,
    MODEL_ID,
    TRAINING_FILES,
    finished,
    sha_tag,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

VERDICT, VERDICT_ID, VERDICT_SUMMARY = "evergreen.verdict", "evergreen.verdict_id", "evergreen.verdict_summary"
REPLACES, PROMOTED_BY, WITHDRAWN = "evergreen.replaces", "evergreen.promoted_by", "evergreen.withdrawn"
UNCOMMITTED = "evergreen.uncommitted"
"""A version's tag: what it was made of that was in no commit then."""

ON_HOLD, ROLLED_BACK = "evergreen.held", "evergreen.rolled_back"
"""Tags. Of a version: why it waits for a person, though its verdict promotes it. Of the registered model: the data
version and the code when a person rolled back; until either changes, nothing is promoted automatically."""

SINCE = "evergreen.champion_since."
"""Tags of the registered model: this and a time → the version that became champion then."""

NOBODY = 0
"""As such a version: from then on there was no champion."""


@dataclass(frozen=True)
class ModelVersion:
    """A version of a registered model."""

    model: str
    number: int
    candidate: str
    run_id: str
    created: str
    tags: dict[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()

    @property
    def withdrawn(self) -> str | None:
        """Why it was withdrawn, if it was."""
        return self.tags.get(WITHDRAWN)

    def __str__(self) -> str:
        return f"{self.model} version {self.number} (candidate {self.candidate})"


@dataclass(frozen=True)
class VersionRecord:
    """A version, for the auditor."""

    version: int
    candidate: str
    data_version: str
    created: str
    verdict: str | None
    summary: str | None
    on_hold: str | None
    """Why it waits for a person, if it does."""
    promoted_by: str | None
    """The id of the verdict that it was promoted by."""
    champion: tuple[str, ...]
    """When it was champion: `from … until …`, UTC."""
    withdrawn: str | None
    aliases: tuple[str, ...]
    run_id: str
    files_removed: str | None
    """When its files were removed: it is old, and never was champion."""


# ── versions and verdicts ─────────────────────────────────────────────────────────────────────────


@with_retries
def register(model_name: str, candidate: str) -> ModelVersion:
    """The version of a tracked candidate, made when it is missing; it becomes `challenger` unless it is champion."""
    with connect(alone_for=model_name) as client:
        run = finished(client, model_name, candidate)
        if run is None:
            raise DataMissing(f"{model_name}: candidate {candidate} is not tracked in MLflow; call track first")
        now = _state(client, model_name)
        _finish_verdicts(client, now)
        version = now.of_candidate(candidate)
        if version is None or (version.run_id != run.info.run_id and _is_without_files(client, version)):
            version = _new_version(client, model_name, candidate, run)
        placed = {now.aliases.get("champion"), now.aliases.get("challenger")}
        if version.withdrawn is None and version.number not in placed:
            client.set_registered_model_alias(model_name, "challenger", str(version.number))
            version = replace(version, aliases=tuple(sorted({*version.aliases, "challenger"})))
        return version


def _new_version(client: MlflowClient, model_name: str, candidate: str, run: MlflowRun) -> ModelVersion:
    with Tolerating("RESOURCE_ALREADY_EXISTS"):
        client.create_registered_model(model_name, description=params.load().model(model_name).about)
    model_id = run.data.tags.get(MODEL_ID) or _logged_model(client, run)
    tags = {CANDIDATE: candidate, DATA_VERSION: run.data.tags.get(DATA_VERSION, ""), "evergreen.run": run.info.run_id}
    made = client.create_model_version(
        model_name, f"models:/{model_id}", run.info.run_id, tags=tags, model_id=model_id, await_creation_for=60
    )
    return _version(made, {})


def _logged_model(client: MlflowClient, run: MlflowRun) -> str:
    """The model that a run logged, where a person has deleted the tag that names it."""
    logged = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'")
    if not logged:
        raise RegistryDamaged(
            f"the run {run.info.run_id} names no logged model any more: delete the run in MLflow and `mlflow gc` it, "
            f"then the next training tracks it anew"
        )
    return str(logged[0].model_id)


def is_gone(client: MlflowClient, run_id: str) -> bool:
    """Whether a run was removed for good (`mlflow gc`), with all of its artifacts."""
    with Tolerating("RESOURCE_DOES_NOT_EXIST"):
        client.get_run(run_id)
        return False
    return True


def _is_without_files(client: MlflowClient, version: ModelVersion) -> bool:
    return is_gone(client, version.run_id) or FORGOTTEN in client.get_run(version.run_id).data.tags


@with_retries
def record_verdict(model_name: str, version: int, verdict: Verdict) -> None:
    """Keep a verdict with the version it is about: document, table and picture with its run, the result as tags."""
    with connect(alone_for=model_name) as client:
        judged = _state(client, model_name).numbered(version)
        if verdict.challenger != judged.candidate:
            raise Mistake(f"verdict {verdict.id} is about candidate {verdict.challenger}, not about {judged}")
        recorded = _read_verdict(client, judged.run_id, verdict.id)
        if recorded is None or recorded.to_json() != verdict.to_json():
            from tasks.release.gate import verdict_chart

            contents = {
                "verdict.md": verdict.to_markdown().encode(),
                "verdict.svg": verdict_chart.picture(verdict),
                "verdict.json": verdict.to_json().encode(),  # the last one: it is what counts
            }
            write_artifacts(client, judged.run_id, contents, to=f"verdicts/{verdict.id}")
        _tag_verdict(client, judged, verdict)


def _finish_verdicts(client: MlflowClient, now: _ModelState) -> None:
    """Write the tags that a killed `record_verdict` did not write: a verdict whose document is whole counts."""
    for version in now.versions.values():
        if VERDICT not in version.tags and (summary := version.tags.get(VERDICT_SUMMARY)):
            for verdict in _verdicts(client, version.run_id):
                if verdict.summary == summary:
                    _tag_verdict(client, version, verdict)


@with_retries
def verdicts(model_name: str, candidate: str) -> list[Verdict]:
    """Every recorded verdict on a candidate, in no order."""
    with connect() as client:
        version = _state(client, model_name).of_candidate(candidate)
        return _verdicts(client, version.run_id) if version else []


def _verdicts(client: MlflowClient, run_id: str) -> list[Verdict]:
    ids = [Path(folder.path).name for folder in client.list_artifacts(run_id, "verdicts")]
    return [verdict for verdict in (_read_verdict(client, run_id, id_) for id_ in ids) if verdict]


def _tag_verdict(client: MlflowClient, version: ModelVersion, verdict: Verdict) -> None:
    result = "promoted" if verdict.promoted else "refused"
    _set_tags(client, version, {VERDICT_SUMMARY: verdict.summary, VERDICT_ID: verdict.id, VERDICT: result})


def _set_tags(client: MlflowClient, version: ModelVersion, tags: dict[str, str]) -> None:
    for tag, value in tags.items():
        if version.tags.get(tag) != value:
            client.set_model_version_tag(version.model, str(version.number), tag, value)


def _read_verdict(client: MlflowClient, run_id: str, verdict_id: str) -> Verdict | None:
    try:
        verdict = Verdict.from_json(read_artifact(client, run_id, f"verdicts/{verdict_id}/verdict.json") or "")
    except ValueError:  # there is none, or a kill left half of it
        return None
    return verdict if verdict.id == verdict_id else None


# ── the state of a registered model ───────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _ModelState:
    """The registry's entry of a model, and what it means in the states between two writes as well."""

    model: str
    versions: dict[int, ModelVersion] = field(default_factory=dict)
    aliases: dict[str, int] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    @cached_property
    def since(self) -> list[tuple[str, int]]:
        """When which version became champion, oldest first."""
        dates = [(tag.removeprefix(SINCE), number) for tag, number in self.tags.items() if tag.startswith(SINCE)]
        return sorted((at, int(number)) for at, number in dates if number.isdigit())

    def numbered(self, number: int) -> ModelVersion:
        if number not in self.versions:
            raise Mistake(f"{self.model} has no version {number} in the registry; there are: {self.numbers()}")
        return self.versions[number]

    def numbers(self, *without: int) -> str:
        return ", ".join(str(number) for number in sorted(self.versions) if number not in without) or "none"

    def of_candidate(self, candidate: str) -> ModelVersion | None:
        return next((v for _, v in sorted(self.versions.items(), reverse=True) if v.candidate == candidate), None)

    @cached_property
    def stored(self) -> ModelVersion | None:
        """The version that the alias `champion` names."""
        return self.versions.get(self.aliases.get("champion", -1))

    @cached_property
    def previous(self) -> ModelVersion | None:
        """The version that gets the place back when the stored champion is withdrawn.

        A kill in `promote` leaves the alias `former` at the champion itself: then the version that it replaced counts.
        A kill in `rollback` leaves the same, but one that came back by a rollback replaces nobody.
        """
        number = self.aliases.get("former", -1)
        if self.stored and number == self.stored.number:
            replaced = self.stored.tags.get(REPLACES, "")
            number = int(replaced) if replaced.isdigit() else -1
        version = self.versions.get(number)
        return version if version and version.withdrawn is None else None

    @cached_property
    def champion(self) -> ModelVersion | None:
        """The champion: already the previous one, where a rollback was killed after the withdrawal."""
        interrupted = self.stored is not None and self.stored.withdrawn is not None and self.previous is not None
        return self.previous if interrupted else self.stored


def _state(client: MlflowClient, model_name: str) -> _ModelState:
    entry = None
    with Tolerating("RESOURCE_DOES_NOT_EXIST"):
        entry = client.get_registered_model(model_name)
    if entry is None:
        return _ModelState(model_name)
    aliases = {alias: int(number) for alias, number in entry.aliases.items()}
    versions: dict[int, ModelVersion] = {}
    token: str | None = ""
    while token is not None:
        page = client.search_model_versions(f"name = '{model_name}'", page_token=token or None)
        versions |= {int(each.version): _version(each, aliases) for each in page}
        token = page.token or None
    return _ModelState(model_name, versions, aliases, dict(entry.tags))


def _version(entity: Any, aliases: dict[str, int]) -> ModelVersion:
    number, tags = int(entity.version), dict(entity.tags)
    created = datetime.fromtimestamp(entity.creation_timestamp / 1000, UTC).isoformat(timespec="seconds")
    names = tuple(sorted(alias for alias, of in aliases.items() if of == number))
    return ModelVersion(entity.name, number, tags.get(CANDIDATE, ""), entity.run_id or "", created, tags, names)


@with_retries
def champion(model_name: str) -> ModelVersion | None:
    """The version that serves, or is about to."""
    with connect() as client:
        return _state(client, model_name).champion


@with_retries
def find(model_name: str, candidate: str) -> ModelVersion | None:
    """The version of a candidate, if it was registered."""
    with connect() as client:
        return _state(client, model_name).of_candidate(candidate)


@with_retries
def resolve(model_name: str, version: str) -> ModelVersion:
    """The version that a number, an alias or a candidate names; `champion` also while a rollback is half done.

    Raises:
        DataMissing: there is no champion.
        Mistake: there is no such version.
    """
    with connect() as client:
        now = _state(client, model_name)
    if version == "champion":
        if now.champion is None:
            raise DataMissing(
                f"{model_name} has no champion yet: train it (evergreen train {model_name}), or name a version"
            )
        return now.champion
    named = [v for v in now.versions.values() if version in {*v.aliases, str(v.number), v.candidate}]
    if not named:
        hint = did_you_mean(version, [*map(str, sorted(now.versions)), *sorted(now.aliases)])
        raise Mistake(
            f"{model_name} has no version or candidate {version!r}{hint}; `evergreen history {model_name}` lists those "
            f"there are"
        )
    return max(named, key=lambda v: v.number)


@with_retries
def history(model_name: str) -> list[VersionRecord]:
    """Every version, oldest first."""
    with connect() as client:
        now = _state(client, model_name)
    return [_record(now, version) for _, version in sorted(now.versions.items())]


def _record(now: _ModelState, version: ModelVersion) -> VersionRecord:
    ends = [*(at for at, _ in now.since[1:]), "now"]
    spans = zip(now.since, ends, strict=False)
    tag = version.tags.get
    return VersionRecord(
        version=version.number,
        candidate=version.candidate,
        data_version=tag(DATA_VERSION, ""),
        created=version.created,
        verdict=tag(VERDICT),
        summary=tag(VERDICT_SUMMARY),
        on_hold=tag(ON_HOLD),
        promoted_by=tag(PROMOTED_BY),
        champion=tuple(f"{at} until {end}" for (at, number), end in spans if number == version.number),
        withdrawn=version.withdrawn,
        aliases=version.aliases,
        run_id=version.run_id,
        files_removed=tag(FORGOTTEN),
    )


# ── edits in MLflow's UI ──────────────────────────────────────────────────────────────────────────


@with_retries
def repair(model_name: str) -> list[str]:
    """Put back what a person removed of the champion in MLflow's UI; gives what was done, in words.

    The last promotion, and the live release, say which version is champion. A model that never had one, or whose last
    one was withdrawn without a successor, has none.
    """
    from tasks.release.registry import desired_state

    with connect(alone_for=model_name) as client:
        now = _state(client, model_name)
        done = [words for version in now.versions.values() if (words := _restore_tags(client, version))]
        now = _state(client, model_name) if done else now
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
        _note_since(client, now, back.number)
        return [*done, f"the alias champion of {model_name} {was} in MLflow: {back} has it again"]


def _restore_tags(client: MlflowClient, version: ModelVersion) -> str:
    """Give a version back the tags that name its candidate, which its run has too; in words what was done."""
    if version.candidate or not version.run_id or is_gone(client, version.run_id):
        return ""
    tags = client.get_run(version.run_id).data.tags
    _set_tags(client, version, {tag: tags[tag] for tag in (CANDIDATE, DATA_VERSION) if tag in tags})
    return f"version {version.number} of {version.model} had lost its tags: put back" if CANDIDATE in tags else ""


def _version_anew(client: MlflowClient, model_name: str, candidate: str, now: _ModelState) -> ModelVersion:
    """A new version of a candidate whose version, or whose whole registered model, was deleted."""
    run = finished(client, model_name, candidate)
    if run is None:
        raise RegistryDamaged(
            f"candidate {candidate} of {model_name} serves, but neither its version nor its run is in MLflow any more. "
            f"It serves on. Restore MLflow's store from a backup (docs/how-to/back-up-and-move.md), or set the alias "
            f"champion to another version (there are: {now.numbers()})"
        )
    return _new_version(client, model_name, candidate, run)


# ── promotion ─────────────────────────────────────────────────────────────────────────────────────


@with_retries
def promote(model_name: str, version: int, verdict_id: str) -> ModelVersion:
    """Make a version the champion.

    Raises:
        NotPromoted: it was withdrawn, no recorded verdict promotes it over today's champion, or the policy wants
            approvals that are not there.
        Mistake: there is no such version.
    """
    with connect(alone_for=model_name) as client:
        now = _finish_change(client, _state(client, model_name))
        chosen = now.numbered(version)
        if now.stored != chosen:
            _refuse_without_verdict(client, now, chosen, verdict_id)
            _refuse_unapproved(client, chosen, verdict_id)
            old = str(now.stored.number) if now.stored else "none"
            client.set_model_version_tag(model_name, str(version), REPLACES, old)
            client.set_model_version_tag(model_name, str(version), PROMOTED_BY, verdict_id)
            if ROLLED_BACK in now.tags:
                client.delete_registered_model_tag(model_name, ROLLED_BACK)
            if now.stored:
                client.set_registered_model_alias(model_name, "former", old)
            client.set_registered_model_alias(model_name, "champion", str(version))
        _note_since(client, now, version)
        if now.aliases.get("challenger") == version:
            client.delete_registered_model_alias(model_name, "challenger")
        if ON_HOLD in chosen.tags:
            client.delete_model_version_tag(model_name, str(version), ON_HOLD)
        return _state(client, model_name).numbered(version)


@with_retries
def put_on_hold(model_name: str, version: int, why: str, made_of: str = "") -> None:
    """Record that a version, though its verdict promotes it, waits for a person's `promote_by_hand`."""
    with connect(alone_for=model_name) as client:
        waiting = _state(client, model_name).numbered(version)
        _set_tags(client, waiting, {tag: value for tag, value in ((ON_HOLD, why), (UNCOMMITTED, made_of)) if value})


@with_retries
def promote_by_hand(model_name: str, version: int | None = None) -> ModelVersion:
    """Promote, for a person, a version whose verdict allows it; by default the challenger.

    Raises:
        Mistake: there is no such version, or no challenger.
        NotPromoted: no recorded verdict promotes it over today's champion.
    """
    with connect() as client:
        now = _state(client, model_name)
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


# ── approvals ─────────────────────────────────────────────────────────────────────────────────────


def _refuse_unapproved(client: MlflowClient, chosen: ModelVersion, verdict_id: str) -> None:
    """Let through what policies/promotion.yaml allows now; everything, where there is no such file."""
    if promotion.path().exists():
        approvals.refuse_without(*_verdict_and_commit(client, chosen, verdict_id))


def _verdict_and_commit(client: MlflowClient, version: ModelVersion, verdict_id: str) -> tuple[Verdict, str]:
    verdict = _read_verdict(client, version.run_id, verdict_id) if version.run_id and verdict_id else None
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
            _refuse_unapproved(client, _state(client, model_name).numbered(version), verdict_id)
        except (NeedsApproval, PolicyError) as error:
            return str(error)
    return None


@with_retries
def approve(model_name: str, candidate: str | None, why: str, *, break_glass: bool = False) -> tuple[int, Approval]:
    """Record the approval of whoever runs this; by default of the challenger. Gives the version too."""
    with connect() as client:
        now = _state(client, model_name)
        number = now.aliases.get("challenger", NOBODY)
        chosen = now.of_candidate(candidate) if candidate else now.versions.get(number)
        if chosen is None:
            known = [version.candidate for version in now.versions.values()]
            hint = did_you_mean(candidate, known) if candidate else ""
            raise Mistake(f"{model_name} has no {f'candidate {candidate!r}' if candidate else 'challenger'}{hint}")
        verdict, commit = _verdict_and_commit(client, chosen, chosen.tags.get(VERDICT_ID, ""))
    return chosen.number, approvals.approve(verdict, commit, why, break_glass=break_glass)


@with_retries
def put_back(model_name: str) -> str | None:
    """Take the alias from a champion that never served and that the policy does not let serve; gives what was done.

    It goes to the live release; where none is live, to whoever was champion before, if the policy lets that one
    serve; else to nobody. The version waits as challenger.

    Raises:
        PolicyError: the policy cannot be read or computed. Nothing was changed.
    """
    from tasks.release.registry import desired_state

    if not promotion.path().exists():
        return None
    with connect(alone_for=model_name) as client:
        now, live = _state(client, model_name), desired_state.read(model_name).live
        chosen = now.champion
        if chosen is None or (live and live.candidate == chosen.candidate) or not (why := _unapproved(client, chosen)):
            return None
        back = now.of_candidate(live.candidate) if live else _champion_before(client, now, chosen)
        back = back if back and back.withdrawn is None else None
        _set_tags(client, chosen, {ON_HOLD: why})
        client.set_registered_model_alias(model_name, "challenger", str(chosen.number))
        if back:
            client.set_registered_model_alias(model_name, "champion", str(back.number))
        else:
            client.delete_registered_model_alias(model_name, "champion")
        _note_since(client, now, back.number if back else NOBODY)
        return f"{chosen} was champion and does not serve: {why.rstrip('.')}; {back or 'nobody'} is champion again"


def _unapproved(client: MlflowClient, version: ModelVersion) -> str | None:
    """Why the policy does not let a version serve that was not live before; None where it may serve."""
    from tasks.release.registry import desired_state

    if desired_state.has_served(version.model, version.candidate):
        return None
    try:
        _refuse_unapproved(client, version, version.tags.get(VERDICT_ID, ""))
    except NeedsApproval as error:
        return str(error)
    return None


def _champion_before(client: MlflowClient, now: _ModelState, chosen: ModelVersion) -> ModelVersion | None:
    """Who was champion before `chosen`, if the policy lets that one serve."""
    numbers = [number for _, number in now.since if number != chosen.number]
    before = now.versions.get(numbers[-1]) if numbers else None
    return before if before and not _unapproved(client, before) else None


@with_retries
def rolled_back(model_name: str) -> str | None:
    """Why nothing is promoted automatically: a person rolled back, and neither data nor code have changed since."""
    with connect() as client:
        tag = _state(client, model_name).tags.get(ROLLED_BACK)
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


def _refuse_without_verdict(client: MlflowClient, now: _ModelState, chosen: ModelVersion, verdict_id: str) -> None:
    if chosen.withdrawn is not None:
        raise NotPromoted(
            f"{chosen} was withdrawn ({chosen.withdrawn}): it is not promoted again. "
            f"To bring it back all the same: evergreen rollback {now.model} --to {chosen.number}"
        )
    verdict = _read_verdict(client, chosen.run_id, verdict_id)
    champion = now.stored.candidate if now.stored else None
    if verdict is None:
        why = f"has no recorded verdict {verdict_id}: it is not promoted. Judge it and record that."
    elif _is_without_files(client, chosen):
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


def _note_since(client: MlflowClient, now: _ModelState, version: int) -> None:
    """Record since when a version is champion, unless that is the newest record."""
    if not now.since or now.since[-1][1] != version:
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        client.set_registered_model_tag(now.model, f"{SINCE}{at}", str(version))


# ── rollback and withdrawal ───────────────────────────────────────────────────────────────────────


@with_retries
def rollback(model_name: str, to: int | None = None, reason: str = "") -> str:
    """Withdraw the champion and give its place to the previous one, or to the version `to`; gives what was done.

    Called again it does not flip back, and goes no further: for that the version has to be named.

    Raises:
        Mistake: there is no version `to`.
        NotPromoted: the release that would come back is lost or was changed. Nothing was changed.
    """
    with connect(alone_for=model_name) as client:
        now = _state(client, model_name)
        _refuse_what_is_lost(now, now.previous if to is None else now.numbered(to))
        if to is not None:
            now = _aim(client, now, to)
        gone, back = now.stored, now.previous
        if gone is None or back is None or gone.number == to:
            return _nothing_to_roll_back(_finish_change(client, now), to)
        if gone.withdrawn is None:
            at = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
            client.set_registered_model_tag(model_name, ROLLED_BACK, json.dumps([at, *_data_and_code()]))
            _set_tags(client, gone, {WITHDRAWN: " ".join(reason.split()) or "rolled back"})
        _finish_change(client, _state(client, model_name))
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
    with connect(alone_for=model_name) as client:
        now = _state(client, model_name)
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
        _set_tags(client, gone, {WITHDRAWN: why})
        if is_champion and back is None:
            _note_since(client, now, NOBODY)
            client.delete_registered_model_alias(model_name, "champion")
        return _finish_change(client, _state(client, model_name)).stored


def _refuse_what_is_lost(now: _ModelState, back: ModelVersion | None) -> None:
    """Fetch and check what a rollback needs before anything is withdrawn for it."""
    if back is None or now.stored in (None, back):
        return
    try:
        fetch_cached(now.model, back)
    except (DataMissing, ModelFileRefused) as error:
        if package.stored(now.model, back.candidate):
            return  # its Bento is here and whole: it can serve, though the gate cannot compare anything with it
        others = now.numbers(back.number, now.stored.number if now.stored else NOBODY)
        further = f". Name another version: --to N (there are {others})" if others != "none" else ""
        raise NotPromoted(
            f"{back} cannot come back: {str(error).rstrip('.')}. Nothing was changed, {now.stored} stays "
            f"champion{further}"
        ) from error


def _aim(client: MlflowClient, now: _ModelState, to: int) -> _ModelState:
    """Make `to` the version that gets the place, also when it was withdrawn: a person asks for it by name."""
    target = now.numbered(to)
    if now.stored != target and now.aliases.get("former") != to:
        client.set_registered_model_alias(now.model, "former", str(to))
    if target.withdrawn is not None:
        client.delete_model_version_tag(now.model, str(to), WITHDRAWN)
    return _state(client, now.model)


def _finish_change(client: MlflowClient, now: _ModelState) -> _ModelState:
    """Do what a killed promotion or rollback left undone; nothing where none was."""
    back = now.champion
    if now.stored is None or back is None:
        return now
    if back != now.stored:
        if REPLACES in back.tags:
            client.delete_model_version_tag(now.model, str(back.number), REPLACES)
        client.set_registered_model_alias(now.model, "champion", str(back.number))
        now = _state(client, now.model)
    _note_since(client, now, back.number)
    if "former" in now.aliases and now.previous is None:
        client.delete_registered_model_alias(now.model, "former")
    if now.aliases.get("challenger") == back.number:
        client.delete_registered_model_alias(now.model, "challenger")
    return _state(client, now.model)


def _nothing_to_roll_back(now: _ModelState, to: int | None) -> str:
    if now.stored is None:
        return f"{now.model} has no champion: nothing to do"
    if to == now.stored.number:
        return f"{now.stored} is champion already: nothing to do"
    others = now.numbers(now.stored.number)
    further = f"; to go further back name the version: --to N (there are {others})" if others != "none" else ""
    came_back = any(v.withdrawn is not None for v in now.versions.values()) and REPLACES not in now.stored.tags
    why = "was rolled back to already" if came_back else "is champion, and there is no former one"
    return f"{now.stored} {why}: nothing to do{further}"


# ── the files of a version ────────────────────────────────────────────────────────────────────────


def fetch_cached(model_name: str, version: ModelVersion) -> Path:
    """A version's release/ and training/ below var/champions/<candidate>, fetched from the store when missing."""
    folder = paths.champions() / version.candidate
    with files.lock(f"champion-{version.candidate}"):
        if not _is_whole(folder, version.candidate):
            fetch(model_name, version.number, folder)
            files.seal(folder)
    return folder


def _is_whole(folder: Path, candidate: str) -> bool:
    try:
        return files.is_sealed(folder) and package.identity_of(folder / "release") == candidate
    except EvergreenError:  # changed or missing: it is fetched again
        return False


@with_retries
def fetch(model_name: str, version: int, to: Path) -> Path:
    """Download a version's release and what is known of its training: `to`/release, `to`/training and `to`/evaluation.

    Its answers on the holdout came to be kept later than the rest: an older version has no `to`/evaluation.

    Raises:
        DataMissing: the store has the version, but its artifacts are gone.
        ModelFileRefused: what came is not what was tracked. Nothing is left at `to`.
        RegistryUnavailable: the store is locked or gone.
    """
    with connect() as client, files.replacing(to) as beside:
        version_ = _state(client, model_name).numbered(version)
        tags = _tags_of_run(client, version_)
        beside.mkdir(parents=True)
        for folder in ("release", "training"):
            _download(client, version_, folder, beside)
        for file in (name for name in EVALUATION_FILES if sha_tag(name) in tags):
            (beside / "evaluation").mkdir(exist_ok=True)
            path = _download(client, version_, f"evaluation/{file}", beside)
            path.replace(beside / "evaluation" / file)  # where it lands, stores differ
        for byte_code in (beside / "release").rglob("__pycache__"):
            files.remove(byte_code)  # no hash covers it, and Python would run it
        _refuse_changed(beside, version_, tags)
    return to


def _tags_of_run(client: MlflowClient, version: ModelVersion) -> dict[str, str]:
    """The tags of its run, which must have its files."""
    if not version.run_id or is_gone(client, version.run_id):
        raise DataMissing(f"the run {version.run_id} of {version} was removed from MLflow for good: so is its release")
    tags: dict[str, str] = client.get_run(version.run_id).data.tags
    if FORGOTTEN in tags:
        commit = tags.get("git.commit", "none")[:10]
        raise DataMissing(
            f"the files of {version} were removed, as it is older than keep_days and never was champion. Train it "
            f"again: git checkout {commit}; evergreen data; evergreen train {version.model}"
        )
    return tags


def _download(client: MlflowClient, version: ModelVersion, path: str, to: Path) -> Path:
    if path not in {file.path for file in client.list_artifacts(version.run_id, path.rpartition("/")[0] or None)}:
        raise DataMissing(f"run {version.run_id} of {version} has no {path} in the store: its artifacts were lost")
    return Path(client.download_artifacts(version.run_id, path, str(to)))


def _refuse_changed(folder: Path, version: ModelVersion, tags: dict[str, str]) -> None:
    """Compare what came with what was tracked. The message names no folder: it becomes part of a verdict."""
    tracked = [folder / "training" / file for file in TRAINING_FILES]
    tracked += [folder / "evaluation" / file for file in EVALUATION_FILES]
    hashes = {path.name: files.sha256(path) if path.is_file() else None for path in tracked}
    changed = [name for name, sha in hashes.items() if sha != tags.get(sha_tag(name))]
    try:
        same = package.identity_of(folder / "release") == version.candidate
    except (DataMissing, ModelFileRefused, ValueError, LookupError, TypeError):
        same = False
    if changed or not same:
        what = ", ".join(changed if same else ["the release", *changed])
        raise ModelFileRefused(
            f"the artifacts of {version} were changed after they were tracked: {what}. They are not used. "
            f"Restore the artifacts of run {version.run_id}, or roll back to another version."
        )
