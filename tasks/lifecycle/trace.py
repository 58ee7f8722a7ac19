"""Trace: the story of one prediction, from the request back to the data, and forward to its label.

Everything is read from where it is kept anyway: the prediction log or a batch's parts, the registry with its verdicts,
the journal of rollouts, the decisions to train, the labels that the monitor has joined.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.data import revisions, versions
from tasks.ground import files, params, paths, settings
from tasks.ground.errors import DataMissing, EvergreenError, Mistake
from tasks.ground.words import many, one_line
from tasks.journal import journal
from tasks.journal.journal import Kind
from tasks.lifecycle import live
from tasks.prediction_log import prediction_log
from tasks.prediction_log.log_tables import moment
from tasks.release.gate import verdicts
from tasks.release.registry import registry, tracking, verdict_records, version_files
from tasks.runtime import answer_columns

if TYPE_CHECKING:
    import pyarrow as pa

    from tasks.release.gate.verdict import Verdict

HEX = frozenset("0123456789abcdef")

ANSWER = {"prediction", "probability", "low", "high", "anomaly_score", "unseen", "problem"}

ACTS: tuple[Kind, ...] = (
    *("training", "registered", "approval", "promotion", "rollback", "withdrawal", "alias", "rollout", "stage"),
)
"""The kinds of lines that tell what was done with a release."""

PART = {"prediction_id", "release", "source", "row"}
"""What every part of a batch has, among other columns."""


@dataclass(frozen=True)
class Trace:
    """One prediction's story; what is not known (any more) stands in `unknown`, with the reason."""

    id: str
    model: str
    asked: dict[str, Any]
    """time, request, key, ms, source; row: as it was posted."""
    answer: dict[str, Any]
    release: dict[str, Any]
    """candidate, version; as: live, canary or batch; share: as canary; promoted_by; champion: its spans; withdrawn."""
    decided: list[dict[str, Any]]
    """The journal's lines about the release: time, kind, who, run, why."""
    verdicts: list[dict[str, Any]]
    """Each with id, promoted, summary, champion and checks."""
    training: dict[str, Any]
    """run, commit, dirty, data, lock, python, libraries, estimator, why."""
    learned_from: list[dict[str, Any]]
    """dataset, partition, md5; now: as it was, revised or withdrawn; came, by, why: when, by whom, and why it came."""
    label: dict[str, Any] | None
    unknown: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The story as JSON values."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """The story for a terminal."""
        asked, release, training = self.asked, self.release, self.training
        yield f"prediction {self.id} of {self.model}"
        yield f"  asked      {asked['time']}, {asked['source']}" + (f", key {asked['key']}" if asked["key"] else "")
        yield "  row        " + ", ".join(f"{name}={value}" for name, value in asked["row"].items())
        yield f"  answer     {json.dumps(self.answer, ensure_ascii=False)}"
        yield f"  label      {self.label['value'] if self.label else 'not known'}"
        yield f"  release    version {release['version']}, candidate {release['candidate']}: {release['as']}"
        yield from (f"  champion   {span}" for span in release.get("champion", ()))
        for act in self.decided:
            yield f"  {act['kind']:<10} {act['time'][:19]} by {act['who']}" + (f": {act['why']}" if act["why"] else "")
        for verdict in self.verdicts:
            yield f"  verdict    {verdict['id']}: {verdict['summary']}"
        if training:
            state = "with changes that no commit has" if training["dirty"] else "clean"
            yield f"  trained    run {training['run']}, commit {training['commit']} ({state})"
            yield f"  why        {training['why']}"
            yield f"  estimator  {training['estimator']}"
            yield f"  packages   lock {training['lock'][:16]}, Python {training['python']}, {training['libraries']}"
            yield f"  data       version {training['data']}"
        for part in self.learned_from:
            yield f"  learned    {part['dataset']}/{part['partition']}  {part['md5']}  {part['now']}" + (
                f"; came {part['came'][:19]} by {part['by']}" if part["came"] else ""
            )
        yield from (f"  unknown    {why}" for why in self.unknown)


@dataclass
class Tracer:
    """Traces predictions of a project; what several of them share is read once."""

    config: params.Params
    origins: dict[tuple[str, str], _Made] = field(default_factory=dict)
    parts: dict[Path, tuple[object, tuple[str, str] | str | None]] = field(default_factory=dict)
    """Part of a batch → its state, and the first and the last id in it; why it cannot be read; None: of no batch."""
    torn: dict[Path, str] = field(default_factory=dict)

    def trace(self, prediction_id: str) -> Trace:
        """The story of a prediction.

        Raises:
            Mistake: it is no id of a prediction.
            DataMissing: no log and no batch has it (any more); says which rule may have taken it.
        """
        if len(prediction_id) != 32 or not set(prediction_id) <= HEX:
            raise Mistake(
                f"{prediction_id!r} is no id of a prediction: these are 32 digits of 0-9 and a-f, as answers and "
                f"batches have them"
            )
        for find in (self._logged, self._scored):
            for model in self.config.models:
                if story := find(model, prediction_id):
                    return story
        raise DataMissing(_gone(prediction_id, self.config, self.torn))

    def _logged(self, model: str, prediction_id: str) -> Trace | None:
        logged = prediction_log.find(model, prediction_id)
        if logged is None:
            return None
        asked: dict[str, Any] = {
            "time": f"{logged.time:%Y-%m-%d %H:%M:%S}",
            "answered": _time(moment(prediction_id)),
            "request": logged.request,
            "key": logged.key,
            "ms": logged.ms,
            "source": "online",
            "row": logged.rows[0],
        }
        origin, answered = self._origin(model, logged.release), moment(prediction_id)
        released, share = _released(model, logged.release, answered)
        label = _label(model, logged.row_keys[0])
        return origin.story(prediction_id, asked, logged.predictions[0], {"as": released, "share": share}, label)

    def _scored(self, model: str, prediction_id: str) -> Trace | None:
        for path in _parts(model):
            if row := self._row_of_part(path, prediction_id):
                answer = {name: value for name, value in row.items() if _is_answer(name)}
                own = {"prediction_id", "model", "version", "release", "source", "data", "row", *answer}
                asked: dict[str, Any] = {
                    "time": None,
                    "request": None,
                    "key": None,
                    "ms": None,
                    "source": f"batch of {row['source']}",
                }
                asked |= {"row": {n: v for n, v in row.items() if n not in own}, "place": row["row"]}
                return self._origin(model, row["release"]).story(prediction_id, asked, answer, {"as": "batch"}, None)
        return None

    def _row_of_part(self, path: Path, prediction_id: str) -> dict[str, Any] | None:
        """A part that cannot be read stops no trace: it is told where nothing else has the id."""
        state = files.state_of(path)
        if path not in self.parts or self.parts[path][0] != state:
            self.parts[path] = (state, _ids_of_part(path))
        ids = self.parts[path][1]
        if isinstance(ids, str):
            self.torn[path] = ids
        is_in = isinstance(ids, tuple) and ids[0] <= prediction_id <= ids[1]
        return _read_row(path, prediction_id) if is_in else None

    def _origin(self, model: str, candidate: str) -> _Made:
        key = (model, candidate)
        if key not in self.origins:
            self.origins[key] = _Made(model, candidate)
        return self.origins[key]


def _gone(prediction_id: str, config: params.Params, torn: Mapping[Path, str]) -> str:
    kept = ", ".join(f"{name} {model.serving.log_days} days" for name, model in config.models.items())
    unread = "".join(f". {why}" for why in torn.values())
    return (
        f"no log has the prediction {prediction_id}, and no batch below {paths.batches()} or where the journal says. "
        f"If it is an online one it was answered {_time(moment(prediction_id))}; logs are kept so long "
        f"(serving.log_days): {kept}. It may also have been erased, or answered by another installation{unread}"
    )


def _time(ms: int) -> str:
    try:
        return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, ValueError, OSError):
        return "at no time that can be"


def _is_answer(column: str) -> bool:
    """Whether a batch's column is of the answer; of several labels each has its own, such as `rain:low`."""
    return answer_columns.is_prediction(column) or bool(ANSWER & {column, column.partition(":")[2]})


def _parts(model: str) -> Iterator[Path]:
    """Every part of a batch of a model on this machine, wherever the journal says that one was written."""
    folders = {paths.batches() / model} | {Path(line.what["to"]) for line in journal.lines(model, "batch")}
    for folder in sorted(folders):
        yield from sorted(folder.rglob("*.parquet"))


def _ids_of_part(path: Path) -> tuple[str, str] | str | None:
    """The first and the last id, as the file's own statistics have them; why it cannot be read; None: of no batch."""
    from pyarrow import ArrowInvalid, parquet

    try:
        footer = parquet.read_metadata(path)
        names = footer.schema.to_arrow_schema().names
        if not set(names) >= PART:
            return None  # somebody else's table
        groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
        statistics = [group.column(names.index("prediction_id")).statistics for group in groups]
    except (ArrowInvalid, OSError) as error:
        return f"{path} cannot be read ({one_line(error, 200)}): remove it, and predict again"
    if not all(each is not None and each.has_min_max for each in statistics):
        return ("", "g")  # after every digit: it has to be looked into
    return (min(each.min for each in statistics), max(each.max for each in statistics)) if statistics else None


def _read_row(path: Path, prediction_id: str) -> dict[str, Any] | None:
    from pyarrow import parquet

    table = parquet.read_table(path, filters=[("prediction_id", "=", prediction_id)])
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows[0] if rows else None


def _label(model: str, row: str | None) -> dict[str, Any] | None:
    """The label of a row that a client has named, if it has come: from the newest rows that have it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for path in sorted((settings.BUILD / model / "rows").glob("*.parquet"), reverse=True) if row else ():
        rows = _labelled(path, files.state_of(path))
        if rows is None:  # an anomaly model may have none
            return None
        if (place := pc.index(rows["id"], pa.scalar(row, rows["id"].type)).as_py()) >= 0:
            (labels,) = rows.drop_columns("id").slice(place, 1).to_pylist()
            return {"row": row, "value": labels.get("label", labels)}
    return None


@lru_cache(maxsize=64)
def _labelled(path: Path, state: object) -> pa.Table | None:  # noqa: ARG001 - what a change changes
    """The ids and the labels of rows; None where they have none."""
    from pyarrow import parquet

    names = answer_columns.labels(parquet.read_schema(path).names)
    return parquet.read_table(path, columns=["id", *names]) if names else None


def _released(model: str, candidate: str, answered: int) -> tuple[str, float | None]:
    """As what a release answered at a moment, and with which share of the requests, by the journal of this machine."""
    at, history = datetime.fromtimestamp(answered / 1000, UTC), live.history(model)
    line, share = history.live_at(at), history.share_at(candidate, at)
    if line is None:
        return "canary, or the journal of this machine begins later", share
    if line.what["candidate"] == candidate:
        return f"live since {line.time}", None
    beside = f"{line.what['candidate']}, which was live since {line.time}"
    if share is not None:
        return f"canary with {share:.0%} of the requests, beside {beside}", share
    return f"drained after {beside}" if history.was_live(candidate, at) else f"canary, beside {beside}", None


# ── where a candidate comes from ──────────────────────────────────────────────────────────────────


@dataclass
class _Made:
    """What is known of a candidate; each thing is read once."""

    model: str
    candidate: str
    unknown: list[str] = field(default_factory=list)

    def story(
        self, prediction_id: str, asked: dict[str, Any], answer: dict[str, Any], released: dict[str, Any], label: Any
    ) -> Trace:
        """The story of one of its predictions."""
        record = self._record
        release: dict[str, Any] = {"candidate": self.candidate, "version": None, **released}
        if record:
            release |= {
                "version": record.version,
                "promoted_by": record.promoted_by,
                "champion": record.champion,
                "withdrawn": record.withdrawn,
            }
        learned_from = self._learned_from
        return Trace(
            prediction_id,
            self.model,
            asked,
            answer,
            release,
            self._decided,
            [_told(verdict) for verdict in self._verdicts],
            self._training,
            learned_from,
            label,
            list(self.unknown),
        )

    @cached_property
    def _record(self) -> registry.VersionRecord | None:
        records = [record for record in registry.history(self.model) if record.candidate == self.candidate]
        if not records:
            self.unknown.append(f"the registry has no candidate {self.candidate}: it was deleted in MLflow")
        return records[-1] if records else None

    @cached_property
    def _verdicts(self) -> list[Verdict]:
        own = verdicts.of_candidate(self.model, self.candidate)
        return own or (verdict_records.of_candidate(self.model, self.candidate) if self._record else [])

    @cached_property
    def _decided(self) -> list[dict[str, Any]]:
        """What the journal says was done with it, and what it lacks."""
        for gap in journal.gaps(self.model):
            self.unknown.append(
                f"the journal of {self.model} lacks {gap}: `evergreen journal verify {self.model}` says where"
            )
        return [
            {"time": line.time, "kind": line.kind, "who": line.who, "run": line.run, "why": _why(line)}
            for line in journal.lines(self.model, *ACTS)
            if self.candidate in (line.what.get("candidate"), (line.what.get("canary") or {}).get("candidate"))
        ]

    @cached_property
    def _tags(self) -> dict[str, str]:
        return tracking.tags(self._record.run_id) if self._record else {}

    @cached_property
    def _facts(self) -> dict[str, Any]:
        """release.json; empty where the release is gone."""
        try:
            version = registry.find(self.model, self.candidate)
            if version is None:
                return {}
            folder = version_files.fetch_cached(self.model, version)
            facts: dict[str, Any] = files.read_json(folder / "release" / "release.json")
        except EvergreenError as error:
            self.unknown.append(f"the release is gone ({one_line(error, 200)}): `keep_days` may have taken it")
            return {}
        return facts

    @cached_property
    def _training(self) -> dict[str, Any]:
        if not self._tags:
            return {}
        tag, libraries = self._tags.get, self._facts.get("lineage", {}).get("libraries", {})
        estimator = self._facts.get("lineage", {}).get("estimator", {})
        assert self._record is not None
        return {
            "run": self._record.run_id,
            "commit": tag("git.commit", "none"),
            "dirty": tag("git.dirty") == "true",
            "data": tag(tracking.DATA_VERSION, "unknown"),
            "lock": tag("lock", "none"),
            "python": tag("python", "unknown"),
            "libraries": ", ".join(f"{name} {version}" for name, version in sorted(libraries.items())),
            "estimator": f"{estimator.get('class', 'unknown')} {json.dumps(estimator.get('params', {}))}",
            "why": self._why_trained(tag(tracking.DATA_VERSION, "")),
        }

    def _why_trained(self, data: str) -> str:
        made = datetime.fromisoformat(self._record.created) if self._record else None
        for line in reversed(journal.lines(self.model, "decision")):
            what = line.what
            is_of_it = what["retrain"] and what["state"].get("data_version") == data
            if is_of_it and (made is None or datetime.fromisoformat(line.time) <= made):
                words = [reason["words"] for group in what["reasons"] for reason in group]
                return "; ".join(words) or f"{what['state'].get('asked_by') or 'somebody'} asked for it"
        return "no decision is in the journal: it was trained by `dvc repro`, or elsewhere"

    @cached_property
    def _learned_from(self) -> list[dict[str, Any]]:
        now, former, came = versions.tree(), revisions.read(), _came()
        return [
            {
                "dataset": dataset,
                "partition": name,
                "md5": md5,
                "now": _now(f"{dataset}/{name}", md5, now, former),
                **came.get((f"{dataset}/{name}", md5), {"came": None, "by": None, "why": None}),
            }
            for dataset, partitions in sorted(self._facts.get("lineage", {}).get("partitions", {}).items())
            for name, md5 in sorted(partitions.items())
        ]


def _came() -> dict[tuple[str, str], dict[str, Any]]:
    """File and content → when it came, by whom, and why: of the first data version that has it."""
    came: dict[tuple[str, str], dict[str, Any]] = {}
    for line in journal.lines(journal.PLATFORM, "data"):
        for content in line.what.get("came", {}).items():
            came.setdefault(content, {"came": line.time, "by": line.who, "why": line.why})
    return came


def _why(line: journal.Line) -> str:
    """What a line says in words."""
    share, outcome = line.what.get("share"), line.what.get("outcome", "")
    return "; ".join(filter(None, [outcome, f"{share:.0%} of the requests" if share else "", line.why]))


def _told(verdict: Verdict) -> dict[str, Any]:
    return {
        "id": verdict.id,
        "promoted": verdict.promoted,
        "summary": verdict.summary,
        "champion": verdict.champion,
        "checks": [asdict(check) for check in verdict.checks],
    }


def _now(partition: str, md5: str, now: revisions.Listing, former: revisions.Histories) -> str:
    if now.get(partition) == md5:
        return "as it was"
    if partition not in now:
        return "withdrawn since"
    known = former.get(revisions.partition_of(partition), [])
    return f"revised since: {many(len(known), 'revision')}" if known else "revised since"
