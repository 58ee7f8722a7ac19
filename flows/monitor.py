"""monitor: requests are compared with the training rows, answers with labels; alarms say what moved."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timedelta
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
from tasks.ground.words import many
from tasks.monitoring import alarms, report
from tasks.monitoring.intake import intake, integrity, labels
from tasks.monitoring.intake.reference import Reference
from tasks.monitoring.quality import weekly
from tasks.release.registry import desired_state

if TYPE_CHECKING:
    from tasks.modelling.daily_summaries import DaySummaries
    from tasks.monitoring.intake.labels import Joined
    from tasks.monitoring.intake.service_counts import ServiceDays

WEEK = timedelta(days=7)


@flow(name="monitor", flow_run_name="monitor/{model}", description=__doc__)
def monitor(model: str) -> State[Any]:
    """Take in new requests, answers and labels of a model, and report on what changed.

    Args:
        model: a name below `models` in params.yaml.
    """
    config = params.load().model(model)
    info = get_run_logger().info
    with exclusive(f"monitor-{model}"):
        if coalesced := triggers.coalesce_waiting():
            info(f"this run answers {many(coalesced, 'more trigger')}")
        if torn_files := integrity.set_aside(model):
            info(f"set aside in var/torn, and made again: {many(len(torn_files), 'torn file')}")
        releases = Releases(model)
        options = intake.IntakeOptions(
            config.task, tuple(config.evaluate.slices), config.serving.log_days, config.timezone
        )
        before = intake.read(model).rows
        state = _step("take in new requests", lambda: intake.ingest(model, options, releases.layout))
        last_day = intake.last_day_over(model, config.timezone)
        inputs = _inputs_digest(model, config, state, last_day)
        if done := outcome_cache.recall(_outcome_file(model), lambda: inputs):
            return Completed(message=f"nothing to do: no request and no label came since {done['at']}")
        info(f"{many(state.rows - before, 'new prediction')}, {state.rows:,} are kept")
        run = _MonitorRun(model, config, releases, state, _live(model), last_day)
        written = run.execute()
        previous = outcome_cache.last_outcome(_outcome_file(model)) or {}
        tracked = _step("record it in MLflow", lambda: run.track(previous.get("tracked", {})), retries=3)
        _publish(model, written, run.picture)
        outcome_cache.keep(_outcome_file(model), inputs, {"at": written["at"], "tracked": tracked})
    return Completed(message=_summary(written))


@dataclass
class _MonitorRun:
    """One run, step by step. What changed is computed, the rest is remembered."""

    model: str
    config: params.Model
    releases: Releases
    state: intake.IntakeState
    live: report.Live | None
    last_day: date
    """The newest day that is over: what came later is kept and shown, but not judged."""
    picture: bytes = b""
    numbers: list[report.Number] = field(default_factory=list)

    @property
    def how(self) -> weekly.Measuring:
        """As in training and at the gate."""
        return weekly.Measuring.of(self.config)

    def execute(self) -> dict[str, Any]:
        """Join labels, detect drift, measure quality, update alarms, and write the report, which is given."""
        joined: Joined = _step("join the labels that came", self._join)
        service = intake.service(self.model, self.state)
        data = _step("compare requests with the training rows", lambda: self._compare(joined, service))
        quality = _step("measure and estimate the quality", lambda: self._measure(joined))
        findings = report.Findings(self.live, service, data, quality)
        _step("update alarms", lambda: self._update_alarms(joined, findings))
        return dict(_step("write the report", lambda: self._write(findings)))

    def _join(self) -> Joined:
        rows = settings.BUILD / self.model / "rows"
        joined = labels.join(self.model, self.state, rows, self.how.task, self.how.loss)
        count, labelled = (sum(getattr(day, name) for day in joined.days.values()) for name in ("rows", "labels"))
        get_run_logger().info(f"{labelled:,} of {count:,} predictions have a label, over {len(joined.days)} days")
        return joined

    def _compare(self, joined: Joined, service: ServiceDays) -> report.DataFindings:
        """Drift of the requests to the live release, against its own reference."""
        from tasks.monitoring.drift import drift

        if self.live is None:
            return report.DataFindings(lacking="no release is live: there is nothing to compare with")
        reference = self.releases.of(self.live.candidate)
        if isinstance(reference, str):
            return report.DataFindings(lacking=reference)
        release = self.state.releases.get(self.live.candidate, intake.ReleaseIntake())
        profile = intake.profile(self.model, self.state, self.live.candidate) or reference.profile
        layouts = intake.columns(profile, release.new)
        stream = self._stream(joined, self.live.candidate, layouts)
        learned = reference.days(layouts)
        units = {name: feature.unit for name, feature in self.config.features.items()}
        if not learned:
            return report.DataFindings(summaries=stream, units=units, lacking=reference.lacking)
        lacking = [reference.lacking or release.lacking, report.untimed(service)]
        drift_report = drift.detect(layouts, learned, stream, units)
        return report.DataFindings(drift_report, stream, learned, units, "; ".join(filter(None, lacking)))

    def _stream(self, joined: Joined, candidate: str, layouts: Mapping[str, Any]) -> DaySummaries:
        """The days of a release that are over, and their labels."""
        import numpy as np

        stream = intake.summaries(self.model, self.state, candidate, layouts)
        of_labels = {name: layout for name, layout in layouts.items() if layout.role == "label"}
        stream |= {name: labels.label_days(joined, candidate, layout) for name, layout in of_labels.items()}
        past = {name: days.until(np.datetime64(self.last_day)) for name, days in stream.items()}
        return {name: days for name, days in past.items() if len(days.days)}

    def _measure(self, joined: Joined) -> report.QualityFindings:
        windows = weekly.measured(self.model, joined, self.how, self.releases.reference)
        reference = self.releases.reference(self.live.candidate) if self.live else None
        if reference is None or reference.holdout is None:
            return report.QualityFindings(self.how.loss, None, windows)
        promised = weekly.promised(self.how, reference)
        return report.QualityFindings(self.how.loss, promised, windows, weekly.basis(self.how, reference, promised))

    def _update_alarms(self, joined: Joined, findings: report.Findings) -> None:
        """Compare what deviates with what deviated before, and announce what is new."""
        gate, fewest = self.config.gate, self.config.rollout.min_requests
        deviations = alarms.of_service(findings.service, self.last_day, gate.latency_ms, fewest)
        if live := self.live:
            moved = findings.data.drift
            deviations += alarms.of_drift(moved, live.candidate, live.version) if moved else []
            deviations += self._degradation(joined, findings.quality, live)
        days = [date.fromisoformat(day) for day in sorted(self.state.asked) if day <= self.last_day.isoformat()]
        span = (days[0], days[-1]) if days else None
        candidate = live.candidate if live else None
        changes = alarms.unannounced(alarms.update(self.model, deviations, candidate, span, report.effect(findings)))
        for alarm, change in changes:
            get_run_logger().warning(f"alarm {alarm['key']} {change}: {alarm['text']}")
        events.stored([events.alarm(self.model, alarm, change) for alarm, change in changes])
        for alarm, change in changes:
            alarms.mark_announced(self.model, alarm["key"], change)

    def _degradation(
        self, joined: Joined, quality: report.QualityFindings, live: report.Live
    ) -> list[alarms.Deviation]:
        from tasks.monitoring.quality import degradation

        reference = self.releases.reference(live.candidate)
        if quality.promised is None or reference is None:
            return []
        holdout = weekly.holdout_losses(self.how, reference, quality.promised)
        own = (degradation.DayLosses(*day) for day in joined.losses(live.candidate))
        days = [of_day for of_day in own if of_day.day <= self.last_day.isoformat()]
        episodes = degradation.find(holdout, days)
        return alarms.of_quality(episodes, self.how.loss, quality.promised, live.candidate, live.version)

    def _write(self, findings: report.Findings) -> dict[str, Any]:
        from tasks.monitoring import chart

        composed, self.numbers = report.compose(self.model, findings), report.numbers(findings)
        report.write_table(self.model, self.numbers)
        self.picture = chart.draw(composed)
        return report.write(self.model, composed)

    def track(self, before: Mapping[str, str]) -> dict[str, str]:
        """Record the numbers of each release beside its version, where they changed; gives their digests."""
        from tasks.release.registry import monitoring_run
        from tasks.release.registry.monitoring_run import WeeklyMetrics

        live = self.live.candidate if self.live else None
        digests = {}
        for candidate in sorted({*self.state.releases, *([live] if live else [])}):
            metrics = report.as_metrics(self.numbers, candidate)
            digests[candidate] = files.digest(metrics)[:16]
            if metrics and before.get(candidate) != digests[candidate]:
                weeks = [
                    WeeklyMetrics(weekly.week_number(since[:10]), datetime.fromisoformat(since) + WEEK, values)
                    for since, values in sorted(metrics.items())
                ]
                monitoring_run.record(self.model, candidate, weeks, self._artifacts() if candidate == live else {})
        return digests

    def _artifacts(self) -> dict[str, bytes]:
        folder = intake.folder(self.model)
        return {"monitor.svg": self.picture} | {
            name: (folder / name).read_bytes() for name in ("report.json", "windows.parquet")
        }


class Releases:
    """The references of releases, fetched from the registry when they are first needed."""

    def __init__(self, model: str) -> None:
        self.model = model
        self._references: dict[str, Reference | str] = {}

    def of(self, candidate: str) -> Reference | str:
        """The reference of a release; or why there is none.

        Raises:
            RegistryUnavailable: the store is locked or gone. The next run asks again.
        """
        if candidate not in self._references:
            self._references[candidate] = self._fetch(candidate)
        return self._references[candidate]

    def reference(self, candidate: str) -> Reference | None:
        """The reference of a release, if there is one."""
        reference = self.of(candidate)
        return None if isinstance(reference, str) else reference

    def layout(self, candidate: str) -> intake.Profile | str:
        """The reference profile of a release; or why there is none."""
        reference = self.of(candidate)
        return reference if isinstance(reference, str) else reference.profile

    def _fetch(self, candidate: str) -> Reference | str:
        folder = paths.champions() / candidate
        if not files.is_sealed(folder):
            from tasks.release.registry import registry, version_files

            version = registry.find(self.model, candidate)
            if version is None:
                return f"the registry does not have release {candidate}: what it learned from is not known"
            try:
                folder = version_files.fetch_cached(self.model, version)
            except (DataMissing, ModelFileRefused, Mistake) as error:
                return str(error)
        return Reference(candidate, folder)


def _step(name: str, go: Callable[[], Any], retries: int = 0) -> Any:
    """A step as a Prefect task. It takes no arguments: Prefect would look through all that is in them."""
    return as_task(go, name, retries)()


def _live(model: str) -> report.Live | None:
    live = desired_state.read(model).live
    return report.Live(live.candidate, live.version, live.since) if live else None


def _inputs_digest(model: str, config: params.Model, state: intake.IntakeState, last_day: date) -> str:
    """The identity of all that a run depends on."""
    newest = intake.newest_day(state)
    judged = min(newest, last_day).isoformat() if newest else None
    kept = {name: value for name, value in asdict(state).items() if name not in ("batch", "watermark")}
    live, waiting = _live(model), [alarm["key"] for alarm, _ in alarms.unannounced(alarms.read(model))]
    rows = labels.look(settings.BUILD / model / "rows")
    return files.digest([kept, judged, rows, vars(live) if live else None, config.model_dump(), waiting])


def _outcome_file(model: str) -> Path:
    """Written when a run is complete: reported, announced and tracked."""
    return intake.folder(model) / "done.json"


def _publish(model: str, written: Mapping[str, Any], picture: bytes) -> None:
    address = f"data:image/svg+xml;base64,{b64encode(picture).decode()}"
    create_markdown_artifact(
        key=f"monitor-{model.replace('_', '-')}",
        markdown=report.markdown(written, address),
        description=_summary(written)[:500],
    )


def _summary(written: Mapping[str, Any]) -> str:
    keys = [alarm["key"] for alarm in written["alarms"] if alarm["closed"] is None]
    count = many(len(keys), "alarm is", "alarms are") + " open"
    named = f"{count}: {', '.join(keys)}" if keys else "no alarm is open"
    windows, loss = written["quality"]["windows"], written["quality"]["loss"]
    last = f"; {loss} in the week of {windows[-1]['since'][:10]}: {windows[-1]['text']}" if windows else ""
    return f"{named}; data: {written['data']['status']}{last}"
