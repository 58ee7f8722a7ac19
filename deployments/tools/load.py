"""`evergreen load`: realistic load on what serves, and what came of it, told each second.

The rows are the newest ones that the model was not trained on (build/<model>/rows), or else those that its release
carries along. With a rate, requests come at random moments, so many a second, however long the answers take; with
connections, each of them asks as soon as it has its answer. Half of the requests keep their connection.
Ends with 1 if any request failed.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployments.tools.load_clients import Answered, Clients, Request
from tasks.ground import files, params, settings
from tasks.ground.errors import DataMissing, WorldError, did_you_mean
from tasks.release.rollout import router_client
from tasks.release.rollout.router_status import RouterStatus

KEY = "EVERGREEN_API_KEY"
"""The variable that holds an API key, where keys are needed; else the operator's token is sent, which is as good."""

ROWS = 2000
"""Different rows of a model that are asked, at most."""


@dataclass(frozen=True)
class Plan:
    """How many requests, and how long."""

    rate: float = 100
    """Requests a second."""
    connections: int | None = None
    """Instead: so many, each as fast as it is answered."""
    seconds: float = 30


def run(plan: Plan, models: list[str] | None = None) -> int:
    """Load some models (none: all that are live). Returns the exit code: 0 all was answered, 1 something failed."""
    live = served()
    asked = {model: rows_of(model, live[model]) for model in chosen(live, models)}
    requests = [one for model, rows in asked.items() for one in requests_of(model, rows)]
    how = f"over {plan.connections} connections" if plan.connections else f"{plan.rate:g} a second"
    print(f"{how} for {plan.seconds:g} s, {len(requests)} different rows of {', '.join(asked)}")
    seen = Seen()
    with suppress(KeyboardInterrupt):
        _run(_load(seen, requests, plan))
    print(seen.summary())
    return 1 if seen.failures else 0


# ── what is asked ─────────────────────────────────────────────────────────────────────────────────


def served() -> dict[str, str]:
    """Model → the candidate that is live.

    Raises:
        WorldError: nothing serves.
    """
    import urllib.error
    import urllib.request

    url = address()
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{url}/status", headers=admitted()), timeout=5) as response:
            models = RouterStatus.model_validate_json(response.read()).models
    except (OSError, ValueError, LookupError, urllib.error.URLError) as error:
        reason = getattr(error, "reason", error)
        raise WorldError(f"nothing serves on {url}: {reason}. `make up` starts what does") from None
    live = {name: status.answers for name, status in models.items() if status.answers}
    if not live:
        raise WorldError(f"the router on {url} has no release that is ready. {url}/status says why")
    return live


def chosen(live: dict[str, str], models: list[str] | None) -> list[str]:
    """The models that are asked.

    Raises:
        WorldError: one of them does not serve.
    """
    for name in models or []:
        if name not in live:
            raise WorldError(f"no release of {name} serves{did_you_mean(name, list(live))}")
    return models or list(live)


def rows_of(model: str, candidate: str) -> list[dict[str, Any]]:
    """Rows as a client would ask them: the newest, or those that the release carries along.

    Raises:
        DataMissing: there are neither rows of the model nor its release on this machine.
    """
    return _holdout(model) or _carried(model, candidate)


def requests_of(model: str, rows: Sequence[dict[str, Any]]) -> list[Request]:
    """A request for each row."""
    headers = admitted()
    return [Request.predict(number, model, [row], headers) for number, row in enumerate(rows)]


def admitted() -> dict[str, str]:
    """The header with which what serves is asked, whether keys are needed or not."""
    key = os.environ.get(KEY) or router_client.token()
    return {"authorization": f"Bearer {key}"} if key else {}


def _holdout(model: str) -> list[dict[str, Any]]:
    from tasks.modelling import rows
    from tasks.release.package import package

    said = params.load().model(model)
    if not (settings.BUILD / model / "split.json").exists():
        return []
    frame = rows.read(settings.BUILD / model, "holdout", list(said.features))
    return package.request_rows(frame.sample(min(ROWS, len(frame)), random_state=0), said)


def _carried(model: str, candidate: str) -> list[dict[str, Any]]:
    release = Path(os.environ["BENTOML_HOME"]) / "bentos" / model / candidate / "src"
    if not release.exists():
        raise DataMissing(f"there are no rows of {model} to ask: neither in {settings.BUILD / model} nor in {release}")
    golden: list[dict[str, Any]] = files.read_json(release / "golden.json")
    background: list[dict[str, Any]] = files.read_json(release / "background.json")
    return [*(one["row"] for one in golden), *background]


def address() -> str:
    """Where the router listens."""
    return f"http://{os.environ['EVERGREEN_HOST']}:{os.environ['EVERGREEN_PORT']}"


# ── what came of it ───────────────────────────────────────────────────────────────────────────────


@dataclass
class Seen:
    """What came of the requests, all together and since the last line."""

    begin: float = field(default_factory=time.perf_counter)
    ms: list[float] = field(default_factory=list)
    late_ms: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    releases: Counter[str] = field(default_factory=Counter)
    _from: int = 0
    _told: Counter[str] = field(default_factory=Counter)

    def add(self, one: Answered) -> None:
        """One more. What failed is no latency."""
        if one.failed:
            self.failures[one.failed] += 1
        else:
            self.ms.append(one.ms)
            self.late_ms.append(one.late_ms)
            self.releases[one.release or "?"] += 1

    def line(self) -> str:
        """The time since the line before."""
        new, failed = self.ms[self._from :], self.failures - self._told
        self._from, self._told = len(self.ms), self.failures.copy()
        told = ", ".join(f"{kind}: {number}" for kind, number in failed.items())
        at = time.perf_counter() - self.begin
        return f"{at:4.0f} s  {len(new):6,}/s   {latencies(new)}" + (f"   failed: {told}" if failed else "")

    def summary(self) -> str:
        """All of it."""
        seconds, number = time.perf_counter() - self.begin, len(self.ms)
        failed = ", ".join(f"{kind}: {times:,}" for kind, times in self.failures.most_common())
        lines = [f"{number:,} answered in {seconds:.1f} s ({number / seconds:,.0f}/s), {failed or 'none failed'}"]
        if number:
            lines.append(f"{latencies(self.ms)}  max {max(self.ms):.1f}")
            lines += [f"{release}  {times:,}" for release, times in self.releases.most_common()]
            if (late := percentile(self.late_ms, 99)) > 0.1 * percentile(self.ms, 99):
                lines.append(f"of that, p99 {late:.1f} ms went by before this program came to sending: it needs a core")
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


async def _load(seen: Seen, requests: list[Request], plan: Plan) -> None:
    clients = Clients(os.environ["EVERGREEN_HOST"], int(os.environ["EVERGREEN_PORT"]), seen.add)
    seen.begin = time.perf_counter()
    telling = asyncio.create_task(_tell(seen))
    try:
        if plan.connections:
            await clients.connected(requests, plan.connections, plan.seconds)
        else:
            await clients.at_rate(requests, plan.rate, plan.seconds)
    finally:
        telling.cancel()
        clients.close()


async def _tell(seen: Seen) -> None:
    second = 0
    while True:
        second += 1
        await asyncio.sleep(max(0.0, seen.begin + second - time.perf_counter()))
        print(seen.line(), flush=True)


def _run(work: Any) -> None:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)
