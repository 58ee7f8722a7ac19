"""The watcher: files that wait in the landing zone wake ingest, a champion that does not serve wakes deploy.

It keeps the status page new besides (deployments/page/keeper.py), as it is there anyway.

It looks at what is, not at what happened: a file that came while nobody watched, a wake that got lost, an ingest that
was killed are all the same sight. A folder's changes wake the watcher at once; a bucket is looked at every few seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from deployments import mend
from deployments.page.keeper import Keeper
from deployments.promotions import Promotions
from flows import api, wakes
from tasks import params, settings
from tasks.data.places import Place, masked
from tasks.errors import EvergreenError, WorldError

FOLDER_SECONDS, BUCKET_SECONDS = 2.0, 5.0
"""The longest time between two looks."""

MEND_SECONDS = 5.0
"""How often it is looked whether a run was killed."""

PATIENCE = (5.0, 15.0, 60.0, 300.0)
"""Seconds before ingest is woken again for files that its last run left where they are."""


@dataclass
class Watcher:
    """What it has seen and done."""

    say: Callable[[str], object] = print
    clock: Callable[[], float] = time.monotonic
    woken_for: frozenset[tuple[str, str]] = frozenset()
    woken_at: float = float("-inf")
    times: int = 0
    trouble: str = field(default="")

    def look(self, said: params.Params) -> None:
        """Look once; wake ingest if it is needed."""
        waiting = frozenset((landed.path, landed.seen) for landed, _ in Place.of(said.landing, "landing").look())
        if not waiting or not self._due(waiting) or under_way("ingest/ingest"):
            return
        fresh = waiting - self.woken_for
        run = wakes.wake("ingest/ingest")
        if run is None:
            raise WorldError("the Prefect server knows no ingest/ingest: make deploy registers it")
        self.times = 0 if fresh else self.times + 1
        self.woken_for, self.woken_at = waiting, self.clock()
        names = ", ".join(sorted("/".join(Path(path).parts[-2:]) for path, _ in fresh or waiting)[:4])
        more = f" and {len(fresh or waiting) - 4} more" if len(fresh or waiting) > 4 else ""
        again = "" if fresh else " (still there: once more)"
        self.say(f"{names}{more} in the landing zone{again}: ingest is woken, {api.run_url(run)}")

    def _due(self, waiting: frozenset[tuple[str, str]]) -> bool:
        """New files at once; files that a run has left behind, ever more seldom."""
        if waiting - self.woken_for:
            return True
        return self.clock() - self.woken_at >= PATIENCE[min(self.times, len(PATIENCE) - 1)]

    def tell(self, trouble: str) -> None:
        """Say what is wrong, once."""
        if trouble != self.trouble:
            self.say(trouble or "all is well again")
        self.trouble = trouble


def under_way(title: str) -> bool:
    """Whether a run of a deployment is due, starting or running: what it does not see is looked at afterwards."""
    soon = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
    flow, name = title.split("/")
    which = {"deployments": {"name": {"any_": [name]}}, "flows": {"name": {"any_": [flow]}}}
    for runs in (
        {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}},
        {"state": {"type": {"any_": ["SCHEDULED"]}}, "next_scheduled_start_time": {"before_": soon}},
    ):
        if api.call("/flow_runs/count", {**which, "flow_runs": runs}):
            return True
    return False


def main() -> None:
    """Watch until ended."""
    settings.apply()
    landing = params.load().landing
    place = Place.of(landing, "landing")
    print(f"watches {masked(landing)}", flush=True)
    watcher = Watcher(say=lambda text: print(text, flush=True))
    promotions, keeper = Promotions(under_way), Keeper(watcher.say)
    pause = _on_changes(Path(place.root)) if place.local else lambda: time.sleep(BUCKET_SECONDS)
    mended = float("-inf")
    while True:
        try:
            watcher.look(params.load())
            for line in promotions.look(params.load()):
                watcher.say(line)
            if time.monotonic() - mended > MEND_SECONDS:
                mended = time.monotonic()
                for line in mend.mend():
                    watcher.say(line)
            watcher.tell("")
        except EvergreenError as error:
            watcher.tell(f"{type(error).__name__}: {error}")
        keeper.look()
        pause()


def _on_changes(folder: Path) -> Callable[[], object]:
    """Waits until something changed below a folder, or for a while: as long as a folder is not mounted, say."""
    from watchfiles import watch

    def changes() -> Iterator[object]:
        while True:
            try:
                yield from watch(
                    folder,
                    step=50,
                    debounce=200,
                    yield_on_timeout=True,
                    rust_timeout=int(FOLDER_SECONDS * 1000),
                    raise_interrupt=False,
                )
            except FileNotFoundError:
                time.sleep(FOLDER_SECONDS)
                yield None

    return changes().__next__


if __name__ == "__main__":
    main()
