"""monitor: what was asked is held against what was learned, what was answered against labels; alarms say what moved."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.prefect_support import events, triggers
from flows.prefect_support.as_task import as_task, exclusive
from tasks.ground import files, outcome_cache, params, paths, settings
from tasks.ground.errors import DataMissing, Mistake, ModelFileRefused
from tasks.monitoring import alarms, report
from tasks.monitoring.intake import intake, integrity, labels
from tasks.monitoring.intake.reference import Reference
from tasks.monitoring.quality import weekly
from tasks.release.registry import desired_state

if TYPE_CHECKING:
    from tasks.monitoring.intake.labels import Joined


@flow(name="monitor", flow_run_name="monitor/{model}", description=__doc__)
def monitor(model: str) -> State[Any]:
    """Look at what a model was asked and what came of its answers, as far as that is new.

    Args:
        model: a name below `models` in params.yaml.
    """
    said = params.load().model(model)
    tell = get_run_logger().info
    with exclusive(f"monitor-{model}"):
        if answered := triggers.coalesce_waiting():
            tell(f"{answered} more wakes are answered by this run")
        if torn_files := integrity.set_aside(model):
            tell(f"{len(torn_files)} torn files were set aside in var/torn: what they held is made again")
        releases = Releases(model)
        wanted = intake.IntakeOptions(said.task, tuple(said.evaluate.slices), said.serving.log_days, said.timezone)
        before = intake.read(model).rows
        state = _step("take in what was asked", lambda: intake.ingest(model, wanted, releases.layout))
        over = intake.last_day_over(model, said.timezone)
        on = _on(model, said, state, over)
        if done := outcome_cache.recall(_note(model), lambda: on):
            return Completed(message=f"nothing to do: nothing was asked and no label came since {done['at']}")
        tell(f"{state.rows - before:,} new predictions, {state.rows:,} are kept")
        look = _Look(model, said, releases, state, _live(model), over)
        whole = look.through()
        before_that = outcome_cache.last_outcome(_note(model)) or {}
        tracked = _step("keep it in MLflow", lambda: look.track(before_that.get("tracked", {})), retries=3)
        _show(model, whole, look.picture)
        outcome_cache.keep(_note(model), on, {"at": whole["at"], "tracked": tracked})
    return Completed(message=_in_words(whole))


class _Look:
    """One look at everything that is known, step by step. What changed is computed, the rest is remembered."""

    def __init__(
        self,
        model: str,
        said: params.Model,
        releases: Releases,
        state: intake.IntakeState,
        live: report.Live | None,
        over: date,
    ) -> None:
        self.model, self.said, self.releases, self.state, self.live = model, said, releases, state, live
        self.over = over
        """The newest day that is over: what came later is kept and shown, but not judged."""
        self.how = weekly.Measuring.of(said)
        self.picture = b""
        self.numbers: list[report.Number] = []

    def through(self) -> dict[str, Any]:
        """From the labels to the report, which is given."""
        joined: Joined = _step("join the labels that came", self._join)
        service = intake.service(self.model, self.state)
        data: report.DataFindings = _step("hold it against what was learned", lambda: self._held(joined, service))
        quality: report.QualityFindings = _step("measure and estimate how good it is", lambda: self._measured(joined))
        _step("open and close alarms", lambda: self._alarm(joined, data, quality, service))
        said = report.compose(self.model, self.live, service, data, quality)
        self.numbers = report.numbers(self.live, service, data, quality)
        return dict(_step("write the report", lambda: self._report(said)))

    def _join(self) -> Joined:
        rows = settings.BUILD / self.model / "rows"
        joined = labels.join(self.model, self.state, rows, self.how.task, self.how.loss)
        counts = [sum(getattr(day, what) for day in joined.days.values()) for what in ("rows", "labels")]
        get_run_logger().info(f"{counts[1]:,} of {counts[0]:,} predictions have a label, over {len(joined.days)} days")
        return joined

    def _held(self, joined: Joined, service: Mapping[str, Mapping[str, Any]]) -> report.DataFindings:
        """Drift, of the live release against its own reference."""
        import numpy as np

        from tasks.monitoring.drift import drift

        if self.live is None:
            return report.DataFindings(lacking="nobody serves: there is nothing to hold it against")
        reference, candidate = self.releases.of(self.live.candidate), self.live.candidate
        if isinstance(reference, str):
            return report.DataFindings(lacking=reference)
        kept = self.state.releases.get(candidate, intake.ReleaseIntake())
        profile = intake.profile(self.model, self.state, candidate) or reference.profile
        wanted = intake.columns(profile, kept.new)
        stream = intake.summaries(self.model, self.state, candidate, wanted)
        came = labels.label_days(joined, candidate, wanted["label"])
        stream = {**stream, "label": came} if len(came.days) else stream
        stream = {name: found.until(np.datetime64(self.over)) for name, found in stream.items()}
        stream = {name: past for name, past in stream.items() if len(past.days)}  # a first day is not over yet
        learned = reference.days(wanted)
        units = {name: feature.unit for name, feature in self.said.features.items()}
        if not learned:
            return report.DataFindings(summaries=stream, units=units, lacking=reference.lacking)
        found = drift.detect(wanted, learned, stream, units=units)
        lacking = [reference.lacking or kept.lacking, report.untimed(service)]
        return report.DataFindings(found, stream, learned, units, "; ".join(filter(None, lacking)))

    def _measured(self, joined: Joined) -> report.QualityFindings:
        windows = weekly.measured(self.model, joined, self.how, self.releases.known)
        reference = self.releases.known(self.live.candidate) if self.live else None
        promised = weekly.promised(self.how, reference) if reference else None
        return report.QualityFindings(self.how.loss, promised, windows)

    def _alarm(
        self,
        joined: Joined,
        data: report.DataFindings,
        quality: report.QualityFindings,
        service: Mapping[str, Mapping[str, Any]],
    ) -> None:
        """Hold what is wrong against what was wrong before, and tell people what is new of it."""
        found = alarms.of_service(service, self.over, self.said.gate.latency_ms, self.said.rollout.min_requests)
        if self.live is not None:
            found += alarms.of_drift(data.drift, self.live.candidate, self.live.version) if data.drift else []
            found += self._declined(joined, quality, self.live)
        days = sorted(day for day in self.state.asked if day <= self.over.isoformat())
        kept = (date.fromisoformat(days[0]), date.fromisoformat(days[-1])) if days else None
        live = self.live.candidate if self.live else None
        known = alarms.update(self.model, found, live, kept, report.effect(quality, self.live))
        waiting = alarms.unannounced(known)
        for one, what in waiting:
            get_run_logger().warning(f"alarm {one['key']} {what}: {one['text']}")
        events.stored([events.alarm(self.model, one, what) for one, what in waiting])
        for one, what in waiting:
            alarms.mark_announced(self.model, one["key"], what)

    def _declined(self, joined: Joined, quality: report.QualityFindings, live: report.Live) -> list[alarms.Deviation]:
        from tasks.modelling import metrics
        from tasks.monitoring.quality import degradation

        reference = self.releases.known(live.candidate)
        if quality.promised is None or "low" not in quality.promised or reference is None or reference.holdout is None:
            return []
        holdout = reference.holdout
        losses = metrics.losses(self.how.loss, holdout["label"], metrics.predictions_of(holdout))
        before = degradation.HoldoutLosses.of(losses, metrics.day_blocks(holdout["time"]), quality.promised)
        days = [day for day in joined.losses(live.candidate) if day[0] <= self.over.isoformat()]
        episodes = degradation.find(before, days)
        return alarms.of_quality(episodes, self.how.loss, quality.promised, live.candidate, live.version)

    def _report(self, said: dict[str, Any]) -> dict[str, Any]:
        from tasks.monitoring import chart

        report.write_table(self.model, self.numbers)
        self.picture = chart.draw(said)
        return report.write(self.model, said)

    def track(self, before: Mapping[str, str]) -> dict[str, str]:
        """The numbers of each release beside its version; those that changed. Gives what stands there now."""
        from tasks.release.registry import monitoring_run

        told = {}
        for candidate in sorted({*self.state.releases, *([self.live.candidate] if self.live else [])}):
            metrics = report.as_metrics(self.numbers, candidate)
            told[candidate] = files.digest(metrics)[:16]
            if not metrics or before.get(candidate) == told[candidate]:
                continue
            live = self.live is not None and self.live.candidate == candidate
            there = [_week(since, found) for since, found in sorted(metrics.items())]
            monitoring_run.record(self.model, candidate, there, self._artifacts() if live else {})
        return told

    def _artifacts(self) -> dict[str, bytes]:
        kept = {name: intake.folder(self.model) / name for name in ("report.json", "windows.parquet")}
        return {"monitor.svg": self.picture, **{name: path.read_bytes() for name, path in kept.items()}}


class Releases:
    """What releases are held against: brought from the registry when it is first asked for."""

    def __init__(self, model: str) -> None:
        self.model = model
        self._known: dict[str, Reference | str] = {}

    def of(self, candidate: str) -> Reference | str:
        """The reference of a release; or why there is none.

        Raises:
            RegistryUnavailable: the store is locked or gone. The next run asks again.
        """
        if candidate not in self._known:
            found = self._brought(candidate)
            self._known[candidate] = Reference(candidate, found) if isinstance(found, Path) else found
        return self._known[candidate]

    def known(self, candidate: str) -> Reference | None:
        """The reference of a release, if there is one."""
        found = self.of(candidate)
        return None if isinstance(found, str) else found

    def layout(self, candidate: str) -> intake.Profile | str:
        """The reference profile of a release; or why there is none."""
        found = self.of(candidate)
        return found if isinstance(found, str) else found.profile

    def _brought(self, candidate: str) -> Path | str:
        folder = paths.champions() / candidate
        if files.is_sealed(folder):
            return folder
        from tasks.release.registry import registry

        version = registry.find(self.model, candidate)
        if version is None:
            return f"the registry does not know release {candidate}: nobody knows what it learned from"
        try:
            return registry.fetch_cached(self.model, version)
        except (DataMissing, ModelFileRefused, Mistake) as error:
            return str(error)


def _step(name: str, go: Callable[[], Any], retries: int = 0) -> Any:
    """A step as a Prefect task. It takes no arguments: Prefect would look through all that is in them."""
    return as_task(go, name, retries)()


def _live(model: str) -> report.Live | None:
    found = desired_state.read(model).live
    return report.Live(found.candidate, found.version, found.since) if found else None


def _week(since: str, found: Mapping[str, float]) -> Any:
    from datetime import timedelta

    from tasks.release.registry import monitoring_run

    until = datetime.fromisoformat(since) + timedelta(days=7)
    return monitoring_run.WeeklyMetrics(weekly.week_number({"since": since}), until, found)


# ── what was looked at ────────────────────────────────────────────────────────────────────────────


def _on(model: str, said: params.Model, state: intake.IntakeState, over: date) -> str:
    """The identity of all that a look depends on."""
    newest = intake.newest_day(state)
    judged = min(newest, over).isoformat() if newest else None
    seen = {name: value for name, value in asdict(state).items() if name not in ("batch", "watermark")}
    live, waiting = _live(model), alarms.unannounced(alarms.read(model))
    rows = labels.look(settings.BUILD / model / "rows")
    return files.digest(
        [seen, judged, rows, vars(live) if live else None, said.model_dump(), [one["key"] for one, _ in waiting]]
    )


def _note(model: str) -> Path:
    """Written when all of a look is done: reported, told and tracked."""
    return intake.folder(model) / "done.json"


# ── told ──────────────────────────────────────────────────────────────────────────────────────────


def _show(model: str, whole: Mapping[str, Any], picture: bytes) -> None:
    drawn = f"data:image/svg+xml;base64,{b64encode(picture).decode()}"
    create_markdown_artifact(
        key=f"monitor-{model.replace('_', '-')}",
        markdown=report.markdown(whole, drawn),
        description=_in_words(whole)[:500],
    )


def _in_words(whole: Mapping[str, Any]) -> str:
    still = [one for one in whole["alarms"] if one["closed"] is None]
    count = f"{len(still)} alarms are open" if len(still) > 1 else "an alarm is open"
    named = f"{count}: {', '.join(one['key'] for one in still)}" if still else "no alarm is open"
    windows, loss = whole["quality"]["windows"], whole["quality"]["loss"]
    last = f"; {loss} in the week of {windows[-1]['since'][:10]}: {windows[-1]['text']}" if windows else ""
    return f"{named}; data: {whole['data']['status']}{last}"
