"""Versions, verdicts and the champion, in MLflow's registry.

Every function may be called again, after it ended or was killed between any two of its writes, and ends in the same
state. What one machine does to one model happens one after the other (`files.lock`).

The aliases of a registered model say where it stands: `champion` serves, `challenger` wants to, `former` is who a
rollback gives the place back to. MLflow has no transaction over several of them, so each change writes down first
what the next steps need, and whoever comes next reads `_Standing`, which knows the states in between:

    promote    tag new: replaces old → nobody rolled back → alias former = old → alias champion = new → note when
               → drop alias challenger
    rollback   (--to N: alias former = N) → a person rolled back → tag champion: withdrawn → former replaces nobody
               → alias champion = former → note when → drop alias former
    withdraw   alias former = who serves → as rollback; where nobody serves: tag champion: withdrawn → note when
               → drop alias champion
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.ground import files, params, paths, settings, uncommitted
from tasks.ground.errors import DataMissing, EvergreenError, Mistake, ModelFileRefused, NotPromoted, RegistryDamaged
from tasks.release.gate.verdict import Verdict
from tasks.release.package import package
from tasks.release.registry import candidate_outcome
from tasks.release.registry.mlflow_store import connect, with_retries
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
"""Of what a version was made that was in no commit then."""

ON_HOLD, ROLLED_BACK = "evergreen.held", "evergreen.rolled_back"
"""Tags. Of a version: why it waits for a person's word, though its verdict promotes it. Of the registered model: what
data version and code were when a person rolled back: until either is another one, nothing is promoted by itself."""

SINCE = "evergreen.champion_since."
"""Tags of the registered model: this and a time → the version that became champion then."""

NOBODY = 0
"""As such a version: from then on nobody was champion."""


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
class Rollback:
    """What a rollback did."""

    champion: ModelVersion | None
    withdrawn: ModelVersion | None
    changed: bool
    message: str

    def __str__(self) -> str:
        return self.message


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
    """Why it waits for a person's word, if it does."""
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
    """The version of a tracked candidate, found or made; it is the `challenger` unless it is, or was, more than that.

    Raises:
        DataMissing: the candidate has no finished run.
    """
    with connect(alone_for=model_name) as client:
        run = finished(client, model_name, candidate)
        if run is None:
            raise DataMissing(f"{model_name}: candidate {candidate} is not tracked in MLflow; call track first")
        now = _standing(client, model_name)
        _finish_verdicts(client, now)
        version = now.of_candidate(candidate)
        if version is None or (version.run_id != run.info.run_id and _is_without_files(client, version)):
            version = _new_version(client, model_name, candidate, run)
        if version.withdrawn is None and version.number not in {
            now.aliases.get("champion"),
            now.aliases.get("challenger"),
        }:
            client.set_registered_model_alias(model_name, "challenger", str(version.number))
            version = replace(version, aliases=tuple(sorted({*version.aliases, "challenger"})))
        return version


def _new_version(client: MlflowClient, model_name: str, candidate: str, run: MlflowRun) -> ModelVersion:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(model_name, description=params.load().model(model_name).about)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
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
    """Whether a run was removed for good (`mlflow gc`), and all of its artifacts with it."""
    from mlflow.exceptions import MlflowException

    try:
        client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return True
    return False


def _is_without_files(client: MlflowClient, version: ModelVersion) -> bool:
    return is_gone(client, version.run_id) or FORGOTTEN in client.get_run(version.run_id).data.tags


@with_retries
def record_verdict(model_name: str, version: int, verdict: Verdict) -> None:
    """Keep a verdict with the version it is about: document, table and picture with its run, the result as tags."""
    from tasks.release.gate import verdict_chart

    with connect(alone_for=model_name) as client:
        judged = _standing(client, model_name).numbered(version)
        if verdict.challenger != judged.candidate:
            raise Mistake(f"verdict {verdict.id} is about candidate {verdict.challenger}, not about {judged}")
        folder = f"verdicts/{verdict.id}"
        held = _read_verdict(client, judged.run_id, verdict.id)
        if held is None or held.to_json() != verdict.to_json():
            with tempfile.TemporaryDirectory() as beside:
                contents = {
                    "md": verdict.to_markdown().encode(),
                    "svg": verdict_chart.picture(verdict),
                    "json": verdict.to_json().encode(),
                }
                for kind, content in contents.items():  # the document last: it is what counts
                    path = Path(beside) / f"verdict.{kind}"
                    path.write_bytes(content)
                    client.log_artifact(judged.run_id, str(path), folder)
        _tag_verdict(client, judged, verdict)


def _finish_verdicts(client: MlflowClient, now: _Standing) -> None:
    """Say of other versions what a killed `record_verdict` did not: the document is whole, and stands for the tags."""
    for version in now.versions.values():
        if VERDICT not in version.tags and (said := version.tags.get(VERDICT_SUMMARY)):
            for verdict in _verdicts(client, version.run_id):
                if verdict.summary == said:
                    _tag_verdict(client, version, verdict)


@with_retries
def verdicts(model_name: str, candidate: str) -> list[Verdict]:
    """Every recorded verdict on a candidate, in no order."""
    with connect() as client:
        version = _standing(client, model_name).of_candidate(candidate)
        return _verdicts(client, version.run_id) if version else []


def _verdicts(client: MlflowClient, run_id: str) -> list[Verdict]:
    ids = [Path(folder.path).name for folder in client.list_artifacts(run_id, "verdicts")]
    return [verdict for verdict in (_read_verdict(client, run_id, one) for one in ids) if verdict]


def _tag_verdict(client: MlflowClient, version: ModelVersion, verdict: Verdict) -> None:
    said = {VERDICT_SUMMARY: verdict.summary, VERDICT_ID: verdict.id}
    for tag, value in {**said, VERDICT: "promoted" if verdict.promoted else "refused"}.items():
        if version.tags.get(tag) != value:
            client.set_model_version_tag(version.model, str(version.number), tag, value)


def _read_verdict(client: MlflowClient, run_id: str, verdict_id: str) -> Verdict | None:
    path = f"verdicts/{verdict_id}/verdict.json"
    if path not in {file.path for file in client.list_artifacts(run_id, f"verdicts/{verdict_id}")}:
        return None
    with tempfile.TemporaryDirectory() as folder:
        text = Path(client.download_artifacts(run_id, path, folder)).read_text(encoding="utf-8")
    try:
        verdict = Verdict.from_json(text)
    except ValueError:  # a kill left half of it: it is not recorded
        return None
    return verdict if verdict.id == verdict_id else None


# ── where a model stands ──────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Standing:
    """The registry's entry of a model, and what it means in the states between two writes as well."""

    model: str
    versions: dict[int, ModelVersion]
    aliases: dict[str, int]
    since: tuple[tuple[str, int], ...]
    tags: dict[str, str] = field(default_factory=dict)

    def numbered(self, number: int) -> ModelVersion:
        if number not in self.versions:
            known = ", ".join(map(str, sorted(self.versions))) or "none"
            raise Mistake(f"{self.model} has no version {number} in the registry; there are: {known}")
        return self.versions[number]

    def of_candidate(self, candidate: str) -> ModelVersion | None:
        return next((v for _, v in sorted(self.versions.items(), reverse=True) if v.candidate == candidate), None)

    @cached_property
    def stored(self) -> ModelVersion | None:
        """Whom the alias `champion` names."""
        return self.versions.get(self.aliases.get("champion", -1))

    @cached_property
    def former(self) -> ModelVersion | None:
        """Who gets the place back when the stored champion is withdrawn.

        A kill in `promote` leaves `former` at the champion itself: then whom that one replaced counts. A kill in
        `rollback` leaves the same, but one that came back by a rollback replaces nobody.
        """
        number = self.aliases.get("former")
        if number is not None and self.stored and number == self.stored.number:
            said = self.stored.tags.get(REPLACES, "")
            number = int(said) if said.isdigit() else None
        found = self.versions.get(number if number is not None else -1)
        return found if found and found.withdrawn is None else None

    @cached_property
    def champion(self) -> ModelVersion | None:
        """Who is champion: the former one already, when a rollback was killed after the withdrawal."""
        interrupted = self.stored is not None and self.stored.withdrawn is not None and self.former is not None
        return self.former if interrupted else self.stored


def _standing(client: MlflowClient, model_name: str) -> _Standing:
    from mlflow.exceptions import MlflowException

    try:
        entry = client.get_registered_model(model_name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return _Standing(model_name, {}, {}, ())
    aliases = {alias: int(number) for alias, number in entry.aliases.items()}
    found, token = [], None
    while True:
        page = client.search_model_versions(f"name = '{model_name}'", page_token=token)
        found += list(page)
        token = page.token
        if not token:
            break
    versions = {int(one.version): _version(one, aliases) for one in found}
    since = sorted(
        (k.removeprefix(SINCE), int(v)) for k, v in entry.tags.items() if k.startswith(SINCE) and v.isdigit()
    )
    return _Standing(model_name, versions, aliases, tuple(since), dict(entry.tags))


def _version(one: Any, aliases: dict[str, int]) -> ModelVersion:
    number = int(one.version)
    created = datetime.fromtimestamp(one.creation_timestamp / 1000, UTC).isoformat(timespec="seconds")
    names = tuple(sorted(alias for alias, of in aliases.items() if of == number))
    tags = dict(one.tags)
    return ModelVersion(one.name, number, tags.get(CANDIDATE, ""), one.run_id or "", created, tags, names)


@with_retries
def champion(model_name: str) -> ModelVersion | None:
    """What serves, or is to serve."""
    with connect() as client:
        return _standing(client, model_name).champion


@with_retries
def find(model_name: str, candidate: str) -> ModelVersion | None:
    """The version of a candidate, if it was registered."""
    with connect() as client:
        return _standing(client, model_name).of_candidate(candidate)


@with_retries
def previous(model_name: str) -> ModelVersion | None:
    """Who gets the place back by a rollback."""
    with connect() as client:
        now = _standing(client, model_name)
        return now.former if now.former != now.champion else None


@with_retries
def history(model_name: str) -> list[VersionRecord]:
    """Every version, oldest first."""
    with connect() as client:
        now = _standing(client, model_name)
    return [_entry(now, version) for _, version in sorted(now.versions.items())]


def _entry(now: _Standing, version: ModelVersion) -> VersionRecord:
    ends = [*(at for at, _ in now.since[1:]), "now"]
    spans = tuple(
        f"{at} until {end}" for (at, number), end in zip(now.since, ends, strict=False) if number == version.number
    )
    tags = version.tags
    return VersionRecord(
        version=version.number,
        candidate=version.candidate,
        data_version=tags.get(DATA_VERSION, ""),
        created=version.created,
        verdict=tags.get(VERDICT),
        summary=tags.get(VERDICT_SUMMARY),
        on_hold=tags.get(ON_HOLD),
        promoted_by=tags.get(PROMOTED_BY),
        champion=spans,
        withdrawn=version.withdrawn,
        aliases=version.aliases,
        run_id=version.run_id,
        files_removed=tags.get(FORGOTTEN),
    )


# ── what people did in MLflow's UI ────────────────────────────────────────────────────────────────


@with_retries
def repair(model_name: str) -> list[str]:
    """Put back what a person took away of the champion in MLflow's UI; gives what was done, in words.

    Who became champion last, and what serves here, say whose place it is. A model that never had a champion, or whose
    last one was withdrawn with nobody after it, has none.

    Raises:
        RegistryDamaged: what serves is not in the registry any more, and cannot be put back.
    """
    from tasks.release.registry import desired_state

    with connect(alone_for=model_name) as client:
        now = _standing(client, model_name)
        done = [said for version in now.versions.values() if (said := _tag_again(client, version))]
        now = _standing(client, model_name) if done else now
        if now.stored is not None and now.stored.candidate:
            return done
        live = desired_state.read(model_name).live
        last = now.since[-1][1] if now.since else None
        back = now.versions.get(last if last is not None else -1)
        if live and (back is None or not back.candidate) and last != NOBODY:
            back = now.of_candidate(live.candidate) or _version_of(client, model_name, live.candidate, now)
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


def _tag_again(client: MlflowClient, version: ModelVersion) -> str:
    """Give a version the tags again that say which candidate it is: its run has them too."""
    if version.candidate or not version.run_id or is_gone(client, version.run_id):
        return ""
    tags = client.get_run(version.run_id).data.tags
    for tag in (CANDIDATE, DATA_VERSION):
        if tag in tags:
            client.set_model_version_tag(version.model, str(version.number), tag, tags[tag])
    return f"version {version.number} of {version.model} had lost its tags: put back" if CANDIDATE in tags else ""


def _version_of(client: MlflowClient, model_name: str, candidate: str, now: _Standing) -> ModelVersion:
    """A version anew of a candidate whose version, or whose whole registered model, was deleted."""
    run = finished(client, model_name, candidate)
    if run is None:
        known = ", ".join(map(str, sorted(now.versions))) or "none"
        raise RegistryDamaged(
            f"candidate {candidate} of {model_name} serves, but neither its version nor its run is in MLflow any more. "
            f"It serves on. Restore MLflow's store from a backup (docs/how-to/back-up-and-move.md), or set the alias "
            f"champion to another version (there are: {known})"
        )
    return _new_version(client, model_name, candidate, run)


# ── who is champion ───────────────────────────────────────────────────────────────────────────────


@with_retries
def promote(model_name: str, version: int, verdict_id: str) -> ModelVersion:
    """Make a version the champion.

    Raises:
        NotPromoted: it was withdrawn, or no recorded verdict promotes it over the champion of now.
        Mistake: there is no such version.
    """
    with connect(alone_for=model_name) as client:
        now = _settle(client, _standing(client, model_name))
        chosen = now.numbered(version)
        if now.stored != chosen:
            _refuse_without_verdict(client, now, chosen, verdict_id)
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
        return _standing(client, model_name).numbered(version)


@with_retries
def put_on_hold(model_name: str, version: int, why: str, made_of: str = "") -> None:
    """Keep that a version may become champion by its verdict, and waits for a person's word: `promote_by_hand`."""
    with connect(alone_for=model_name) as client:
        held = _standing(client, model_name).numbered(version)
        for tag, value in ((ON_HOLD, why), (UNCOMMITTED, made_of)):
            if value and held.tags.get(tag) != value:
                client.set_model_version_tag(model_name, str(version), tag, value)


@with_retries
def promote_by_hand(model_name: str, version: int | None = None) -> ModelVersion:
    """A person's word: promote a version that has a verdict for it, by default the challenger.

    Raises:
        Mistake: there is no such version, or no challenger.
        NotPromoted: no recorded verdict promotes it over the champion of now.
    """
    with connect() as client:
        now = _standing(client, model_name)
    number = version or now.aliases.get("challenger")
    if number is None:
        raise Mistake(f"{model_name} has no challenger: name a version (evergreen history {model_name})")
    chosen = now.numbered(number)
    if chosen == now.stored:
        return chosen
    if VERDICT_ID not in chosen.tags:
        raise NotPromoted(f"{chosen} was not judged yet: evergreen train {model_name} again")
    promoted = promote(model_name, number, chosen.tags[VERDICT_ID])
    candidate_outcome.promoted_by_hand(model_name, promoted.candidate, f"{promoted} is champion, by a person's word")
    return promoted


@with_retries
def rolled_back(model_name: str) -> str | None:
    """Why nothing is promoted by itself: a person rolled back, and since then neither data nor code are others."""
    with connect() as client:
        said = _standing(client, model_name).tags.get(ROLLED_BACK)
    if not said:
        return None
    try:
        at, data, code = json.loads(said)
    except (ValueError, TypeError):
        return f"{model_name} was rolled back, and its tag {ROLLED_BACK} was edited in MLflow: delete it there to go on"
    if (data, code) != _now():
        return None
    return f"a person rolled back on {at}, and since then neither data nor code have changed"


def _now() -> tuple[str, str]:
    """The data version that data.dvc names, and the code as it is committed."""
    named = settings.ROOT / "data.dvc"
    return files.md5(named) if named.exists() else "", uncommitted.code()


def _refuse_without_verdict(client: MlflowClient, now: _Standing, chosen: ModelVersion, verdict_id: str) -> None:
    if chosen.withdrawn is not None:
        raise NotPromoted(
            f"{chosen} was withdrawn ({chosen.withdrawn}): it is not promoted again. "
            f"To bring it back all the same: evergreen rollback {now.model} --to {chosen.number}"
        )
    verdict = _read_verdict(client, chosen.run_id, verdict_id)
    if verdict is None:
        raise NotPromoted(
            f"{chosen} has no recorded verdict {verdict_id}: it is not promoted. Judge it and record that."
        )
    if _is_without_files(client, chosen):
        raise NotPromoted(
            f"{chosen} is not promoted: its files were removed (keep_days in params.yaml). Train it again"
        )
    if not verdict.promoted or verdict.challenger != chosen.candidate:
        raise NotPromoted(f"{chosen} is not promoted: {verdict.summary}")
    champion = now.stored.candidate if now.stored else None
    if verdict.champion != champion:
        raise NotPromoted(
            f"{chosen} is not promoted: verdict {verdict_id} compares it with {verdict.champion or 'no champion'}, "
            f"but the champion is {champion or 'nobody'} now. Judge it again."
        )


def _note_since(client: MlflowClient, now: _Standing, version: int) -> None:
    """Write down since when a version is champion, unless that is the last thing that was written down."""
    if not now.since or now.since[-1][1] != version:
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        client.set_registered_model_tag(now.model, f"{SINCE}{at}", str(version))


@with_retries
def rollback(model_name: str, to: int | None = None, reason: str = "") -> Rollback:
    """Withdraw the champion and give its place to the former one, or to the version `to`.

    Called again it does not flip back, and goes no further: for that the version has to be named.

    Raises:
        Mistake: there is no version `to`.
        NotPromoted: the release that is to come back is lost or was changed. Nothing was changed.
    """
    with connect(alone_for=model_name) as client:
        now = _standing(client, model_name)
        _refuse_what_is_lost(now, now.former if to is None else now.numbered(to))
        if to is not None:
            now = _aim(client, now, to)
        gone, back = now.stored, now.former
        if gone is None or back is None or gone.number == to:
            now = _settle(client, now)
            return Rollback(now.stored, None, changed=False, message=_nothing_to_roll_back(now, to))
        if gone.withdrawn is None:
            at = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
            client.set_registered_model_tag(model_name, ROLLED_BACK, json.dumps([at, *_now()]))
            why = " ".join(reason.split()) or "rolled back"
            client.set_model_version_tag(model_name, str(gone.number), WITHDRAWN, why)
        now = _settle(client, _standing(client, model_name))
        message = (
            f"{model_name}: version {gone.number} (candidate {gone.candidate}) is withdrawn, version {back.number} "
        )
        message += f"(candidate {back.candidate}) is champion again"
        return Rollback(now.stored, now.numbered(gone.number), changed=True, message=message)


@with_retries
def withdraw(model_name: str, version: int, reason: str, serves: str | None) -> ModelVersion | None:
    """Withdraw a version that did not stand its rollout, and give its place back; gives who is champion then.

    Args:
        model_name: whose version.
        version: the one that failed. Where it is not champion any more, somebody has decided meanwhile: it is
            withdrawn, and who is champion stays.
        reason: is recorded with it.
        serves: the candidate that serves on and gets the place: the alias `former` may name another one, when a
            person has set the alias `champion` by hand. None: nobody serves, and nobody is champion then.

    Raises:
        Mistake: there is no such version.
        NotPromoted: who serves was withdrawn as well. Nothing was changed.
    """
    with connect(alone_for=model_name) as client:
        now = _standing(client, model_name)
        gone, why = now.numbered(version), " ".join(reason.split())
        back = (now.of_candidate(serves) or now.former) if serves else None
        is_champion = now.stored == gone
        if is_champion and back and back.withdrawn is not None:
            raise NotPromoted(
                f"{gone} fails ({why}), and {back}, which serves on, was itself withdrawn ({back.withdrawn}): nobody "
                f"can have the place. Name a version: evergreen rollback {model_name} --to N"
            )
        if is_champion and back and now.aliases.get("former") != back.number:
            client.set_registered_model_alias(model_name, "former", str(back.number))
        if gone.withdrawn != why:
            client.set_model_version_tag(model_name, str(version), WITHDRAWN, why)
        if is_champion and back is None:
            _note_since(client, now, NOBODY)
            client.delete_registered_model_alias(model_name, "champion")
        return _settle(client, _standing(client, model_name)).stored


def _refuse_what_is_lost(now: _Standing, back: ModelVersion | None) -> None:
    """Bring what a rollback needs, and check it, before anything is withdrawn for it."""
    if back is None or now.stored in (None, back):
        return
    try:
        fetch_cached(now.model, back)
    except (DataMissing, ModelFileRefused) as error:
        if package.stored(now.model, back.candidate):
            return  # its Bento is here and whole: it can serve, though the gate cannot compare anything with it
        others = [
            str(n) for n in sorted(now.versions) if n not in (back.number, now.stored.number if now.stored else 0)
        ]
        further = f". Name another version: --to N (there are {', '.join(others)})" if others else ""
        raise NotPromoted(
            f"{back} cannot come back: {str(error).rstrip('.')}. Nothing was changed, {now.stored} stays "
            f"champion{further}"
        ) from error


def _aim(client: MlflowClient, now: _Standing, to: int) -> _Standing:
    """Make `to` the one who gets the place, also when it was withdrawn: a person asks for it by name."""
    target = now.numbered(to)
    if now.stored == target:
        return now if target.withdrawn is None else _restore(client, now, target)
    if now.aliases.get("former") != to:
        client.set_registered_model_alias(now.model, "former", str(to))
    return _restore(client, _standing(client, now.model), target)


def _restore(client: MlflowClient, now: _Standing, target: ModelVersion) -> _Standing:
    if target.withdrawn is None:
        return now
    client.delete_model_version_tag(now.model, str(target.number), WITHDRAWN)
    return _standing(client, now.model)


def _settle(client: MlflowClient, now: _Standing) -> _Standing:
    """Do what a promotion or a rollback that was killed left undone; nothing when none was."""
    back = now.champion
    if now.stored is None or back is None:
        return now
    if back != now.stored:
        if REPLACES in back.tags:
            client.delete_model_version_tag(now.model, str(back.number), REPLACES)
        client.set_registered_model_alias(now.model, "champion", str(back.number))
        now = _standing(client, now.model)
    _note_since(client, now, back.number)
    if "former" in now.aliases and now.former is None:
        client.delete_registered_model_alias(now.model, "former")
    if now.aliases.get("challenger") == back.number:
        client.delete_registered_model_alias(now.model, "challenger")
    return _standing(client, now.model)


def _nothing_to_roll_back(now: _Standing, to: int | None) -> str:
    if now.stored is None:
        return f"{now.model} has no champion: nothing to do"
    if to == now.stored.number:
        return f"{now.stored} is champion already: nothing to do"
    others = [str(number) for number in sorted(now.versions) if number != now.stored.number]
    further = f"; to go further back name the version: --to N (there are {', '.join(others)})" if others else ""
    came_back = any(v.withdrawn is not None for v in now.versions.values()) and REPLACES not in now.stored.tags
    why = "was rolled back to already" if came_back else "is champion, and there is no former one"
    return f"{now.stored} {why}: nothing to do{further}"


# ── a champion, brought back ──────────────────────────────────────────────────────────────────────


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
    except EvergreenError:  # it was changed, or is not there: it is fetched again
        return False


@with_retries
def fetch(model_name: str, version: int, to: Path) -> Path:
    """Bring a version's release and what is known of its training: `to`/release, `to`/training and `to`/evaluation.

    What it answered on its holdout came to be kept later than the rest: a version of before has no `to`/evaluation.

    Raises:
        DataMissing: the store has the version, but its artifacts are gone.
        ModelFileRefused: what came is not what was tracked. Nothing is left at `to`.
        RegistryUnavailable: the store is locked or gone.
    """
    with connect() as client, files.replacing(to) as beside:
        wanted = _standing(client, model_name).numbered(version)
        if not wanted.run_id or is_gone(client, wanted.run_id):
            raise DataMissing(
                f"the run {wanted.run_id} of {wanted} was removed from MLflow for good: so is its release"
            )
        tags = client.get_run(wanted.run_id).data.tags
        if FORGOTTEN in tags:
            commit = tags.get("git.commit", "none")[:10]
            raise DataMissing(
                f"the files of {wanted} were removed, as it is older than keep_days and never was champion. Train it "
                f"again: git checkout {commit}; evergreen data; evergreen train {model_name}"
            )
        beside.mkdir(parents=True)
        there = {file.path for file in client.list_artifacts(wanted.run_id)}
        for folder in ("release", "training"):
            if folder not in there:
                raise DataMissing(
                    f"run {wanted.run_id} of {wanted} has no {folder}/ in the store: its artifacts were lost"
                )
            client.download_artifacts(wanted.run_id, folder, str(beside))
        for file in (name for name in EVALUATION_FILES if sha_tag(name) in tags):
            _bring(client, wanted, f"evaluation/{file}", beside)
        for byte_code in (beside / "release").rglob("__pycache__"):
            files.remove(byte_code)  # no hash speaks of it, and Python would run it
        _refuse_changed(beside, wanted, tags)
    return to


def _bring(client: MlflowClient, wanted: ModelVersion, path: str, to: Path) -> None:
    if path not in {file.path for file in client.list_artifacts(wanted.run_id, path.rpartition("/")[0])}:
        raise DataMissing(f"run {wanted.run_id} of {wanted} has no {path} in the store: it was lost")
    (to / path).parent.mkdir(exist_ok=True)
    Path(client.download_artifacts(wanted.run_id, path, str(to))).replace(to / path)  # where it lands, stores differ


def _refuse_changed(folder: Path, wanted: ModelVersion, tags: dict[str, str]) -> None:
    """Compare what came with what was tracked. The message names no folder: it becomes part of a verdict."""
    tracked = [folder / "training" / file for file in TRAINING_FILES]
    tracked += [folder / "evaluation" / file for file in EVALUATION_FILES]
    changed = [path.name for path in tracked if _sha_or_none(path) != tags.get(sha_tag(path.name))]
    try:
        same = package.identity_of(folder / "release") == wanted.candidate
    except (DataMissing, ModelFileRefused, ValueError, LookupError, TypeError):
        same = False
    if changed or not same:
        what = ", ".join(changed if same else ["the release", *changed])
        raise ModelFileRefused(
            f"the artifacts of {wanted} were changed after they were tracked: {what}. They are not used. "
            f"Restore the artifacts of run {wanted.run_id}, or roll back to another version."
        )


def _sha_or_none(path: Path) -> str | None:
    return files.sha256(path) if path.is_file() else None
