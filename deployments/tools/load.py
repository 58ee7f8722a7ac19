"""Load test of the router: realistic requests, and each second how they were answered.

The rows are the newest ones that the model was not trained on (build/<model>/rows), or else those that its release
carries along. With a rate, requests come at random moments, so many a second, however long the answers take; with
connections, each of them sends as soon as it has its answer. Half of the requests keep their connection open.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import uvloop

from deployments.tools.load_clients import LoadClients, LoadRequest, LoadResult
from tasks.ground import files, http, params, settings
from tasks.ground.errors import DataMissing, WorldError, did_you_mean
from tasks.release import bento_store
from tasks.release.rollout import router_client
from tasks.release.rollout.router_status import RouterStatus

KEY = "EVERGREEN_API_KEY"
"""The variable with an API key; without one the operator's token is sent, which admits to everything."""

ROWS = 2000  # different rows of a model that are sent, at most


def run(rate: float, connections: int | None, seconds: float, models: Sequence[str] | None = None) -> int:
    """Load some models (none: all that are live). Returns the exit code: 0 all was answered, 1 a request failed.

    Args:
        rate: requests a second.
        connections: instead, so many, each as fast as it is answered.
        seconds: how long.
        models: their names.
    """
    live = live_releases()
    for name in models or []:
        if name not in live:
            raise WorldError(f"no release of {name} is live{did_you_mean(name, list(live))}")
    names = models or list(live)
    requests = [request for name in names for request in requests_of(name, rows_of(name, live[name]))]
    how = f"over {connections} connections" if connections else f"{rate:g} a second"
    print(f"{how} for {seconds:g} s, {len(requests)} different rows of {', '.join(names)}")
    summary = LoadSummary()
    with suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_load(summary, requests, rate, connections, seconds))
    print(summary.text())
    return 1 if summary.failures else 0


# ── what is sent ──────────────────────────────────────────────────────────────────────────────────


def live_releases() -> dict[str, str]:
    """Model → the candidate that answers."""
    url = address()
    try:
        models = RouterStatus.model_validate(http.call(f"{url}/status", headers=authorization(), timeout=5)).models
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise WorldError(f"no router answers on {url}: {reason}. `evergreen up` starts one") from None
    live = {name: status.answers for name, status in models.items() if status.answers}
    if not live:
        raise WorldError(f"the router on {url} has no release that is ready. {url}/status says why")
    return live


def address() -> str:
    """Where the router listens."""
    return f"http://{os.environ['EVERGREEN_HOST']}:{os.environ['EVERGREEN_PORT']}"


def authorization() -> dict[str, str]:
    """The header that admits to the router, whether it requires keys or not."""
    key = os.environ.get(KEY) or router_client.token()
    return {"authorization": f"Bearer {key}"} if key else {}


def rows_of(model: str, candidate: str) -> list[dict[str, Any]]:
    """Rows as a client would send them: the newest, or those that the release carries along."""
    return _holdout(model) or _carried(model, candidate)


def requests_of(model: str, rows: Sequence[dict[str, Any]]) -> list[LoadRequest]:
    """A request for each row."""
    headers = authorization()
    return [LoadRequest.predict(number, model, [row], headers) for number, row in enumerate(rows)]


def _holdout(model: str) -> list[dict[str, Any]]:
    from tasks.modelling import rows
    from tasks.release.package import package

    section = params.load().model(model)
    if not (settings.BUILD / model / "split.json").exists():
        return []
    frame = rows.read(settings.BUILD / model, "holdout", section.columns)
    return package.request_rows(frame.sample(min(ROWS, len(frame)), random_state=0), section)


def _carried(model: str, candidate: str) -> list[dict[str, Any]]:
    release = bento_store.release_folder(model, candidate)
    if not release.exists():
        raise DataMissing(f"there are no rows of {model} to send: neither in {settings.BUILD / model} nor in {release}")
    golden: list[dict[str, Any]] = files.read_json(release / "golden.json")
    background: list[dict[str, Any]] = files.read_json(release / "background.json")
    return [*(example["row"] for example in golden), *background]


# ── how it was answered ───────────────────────────────────────────────────────────────────────────


@dataclass
class LoadSummary:
    """Latencies and failures, altogether and since the last line."""

    begin: float = field(default_factory=time.perf_counter)
    ms: list[float] = field(default_factory=list)
    late_ms: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    releases: Counter[str] = field(default_factory=Counter)
    _printed: int = 0
    _printed_failures: Counter[str] = field(default_factory=Counter)

    def add(self, result: LoadResult) -> None:
        """Count one request. A failure has no latency."""
        if result.failed:
            self.failures[result.failed] += 1
        else:
            self.ms.append(result.ms)
            self.late_ms.append(result.late_ms)
            self.releases[result.release or "?"] += 1

    def line(self) -> str:
        """The time since the line before."""
        new, failed = self.ms[self._printed :], self.failures - self._printed_failures
        self._printed, self._printed_failures = len(self.ms), self.failures.copy()
        kinds = ", ".join(f"{kind}: {number}" for kind, number in failed.items())
        at = time.perf_counter() - self.begin
        return f"{at:4.0f} s  {len(new):6,}/s   {latencies(new)}" + (f"   failed: {kinds}" if kinds else "")

    def text(self) -> str:
        """All of it."""
        seconds, number = time.perf_counter() - self.begin, len(self.ms)
        failed = ", ".join(f"{kind}: {times:,}" for kind, times in self.failures.most_common())
        lines = [f"{number:,} answered in {seconds:.1f} s ({number / seconds:,.0f}/s), {failed or 'none failed'}"]
        if number:
            lines.append(f"{latencies(self.ms)}  max {max(self.ms):.1f}")
            lines += [f"{release}  {times:,}" for release, times in self.releases.most_common()]
            if (late := percentile(self.late_ms, 99)) > 0.1 * percentile(self.ms, 99):
                lines.append(f"of that, p99 {late:.1f} ms passed before this program could send: it needs a core")
        return "\n".join(lines)


def latencies(ms: Sequence[float]) -> str:
    """Percentiles, for people."""
    if not ms:
        return "p50      –  p95      –  p99      – ms"
    return "  ".join(f"p{share} {percentile(ms, share):6.1f}" for share in (50, 95, 99)) + " ms"


def percentile(ms: Sequence[float], share: float) -> float:
    """The value that so many in a hundred do not exceed; 0 of nothing."""
    ranked = sorted(ms)
    return ranked[min(len(ranked) - 1, int(len(ranked) * share / 100))] if ranked else 0.0


async def _load(
    summary: LoadSummary, requests: list[LoadRequest], rate: float, connections: int | None, seconds: float
) -> None:
    clients = LoadClients(os.environ["EVERGREEN_HOST"], int(os.environ["EVERGREEN_PORT"]), summary.add)
    summary.begin = time.perf_counter()
    printing = asyncio.create_task(_print_each_second(summary))
    try:
        if connections:
            await clients.connected(requests, connections, seconds)
        else:
            await clients.at_rate(requests, rate, seconds)
    finally:
        printing.cancel()
        clients.close()


async def _print_each_second(summary: LoadSummary) -> None:
    second = 0
    while True:
        second += 1
        await asyncio.sleep(max(0.0, summary.begin + second - time.perf_counter()))
        print(summary.line(), flush=True)
