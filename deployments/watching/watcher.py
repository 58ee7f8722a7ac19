"""Watcher process: polls for what is to be triggered, registered, recovered or reported; refreshes the status page.

It looks at the current state, not at what happened: a file that came while nobody watched, a trigger that got lost, an
ingest that was killed are all the same sight. A change in a folder starts a round at once; a bucket is polled every few
seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from deployments.orchestration.blockers import BlockerWatch
from deployments.status_page.page import PageRefresher
from deployments.watching.backoff import Backoff
from deployments.watching.champion_watch import ChampionWatch
from deployments.watching.crash_recovery import CrashRecovery
from deployments.watching.registration_watch import RegistrationWatch
from flows.prefect_support import announcements, api, triggers
from flows.prefect_support.triggers import under_way
from tasks.data import versions, zones
from tasks.ground import addresses, params
from tasks.ground.errors import EvergreenError
from tasks.ground.paths import watcher_heartbeat
from tasks.ground.words import listed
from tasks.journal import open_lineage

FOLDER_SECONDS, BUCKET_SECONDS = 2.0, 5.0  # the longest time between two rounds

RECOVERY_SECONDS, REGISTRATION_SECONDS, BLOCKERS_SECONDS, PAGE_SECONDS, LINEAGE_SECONDS = 5.0, 5.0, 15.0, 2.0, 10.0
"""The least time between two looks of these watches."""

DATA_VERSION = "data.dvc"  # stands among the waiting files for a data version that the trainings were not triggered for
NAMED = 4  # so many waiting files are named; of more, the number


class LandingWatch:
    """Triggers ingest as long as something waits in the landing zone and no ingest is under way."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.backoff = Backoff(clock)

    def look(self, config: params.Params) -> Iterator[str]:
        """Look once; gives a line if ingest is triggered."""
        waiting = frozenset((landed.path, landed.seen) for landed, _ in zones.landing(config.landing).look())
        announced, version = announcements.version(), versions.current()
        if announced and version and announced != version:
            waiting |= {(DATA_VERSION, version)}
        if not waiting or not self.backoff.is_due(waiting) or under_way("ingest/ingest"):
            return
        fresh = waiting - (self.backoff.cause or frozenset())
        run = triggers.require("ingest/ingest")
        again = " (still there: once more)" if self.backoff.acted(waiting) else ""
        yield f"{_in_words(fresh or waiting)}{again}: ingest is triggered, {api.run_url(run)}"


def _in_words(waiting: frozenset[tuple[str, str]]) -> str:
    names = sorted("/".join(Path(path).parts[-2:]) for path, _ in waiting if path != DATA_VERSION)
    landed = [f"{listed(names, NAMED)} in the landing zone"] if names else []
    version = [f"data version {version}, not announced yet" for path, version in waiting if path == DATA_VERSION]
    return ", ".join([*landed, *version])


@dataclass
class PollingLoop:
    """Polls watches in turn: one that fails stops no other, and its error is reported once."""

    watches: Mapping[str, tuple[Callable[[], Iterable[str] | None], float]]
    """Name → what gives a line for each thing it did, and the least seconds between two of its looks."""
    report: Callable[[str], object] = print
    clock: Callable[[], float] = time.monotonic
    errors: dict[str, str] = field(default_factory=dict)  # watch → its error at the last look
    looked: dict[str, float] = field(default_factory=dict)

    def poll(self) -> None:
        """Let each watch look that is due."""
        before = set(self.errors.values())
        for name, (look, seconds) in self.watches.items():
            if self.clock() - self.looked.get(name, float("-inf")) < seconds:
                continue
            self.looked[name] = self.clock()
            try:
                for line in look() or ():
                    self.report(line)
                self.errors.pop(name, None)
            except (EvergreenError, OSError) as error:  # a full disk, say
                self.errors[name] = f"{type(error).__name__}: {error}"
                if isinstance(error, api.PrefectApiError):
                    break  # the others would wait for the server as well
        now = set(self.errors.values())
        for error_text in sorted(now - before):
            self.report(error_text)
        if before and not now:
            self.report("all is well again")


def _tell_lineage() -> None:
    open_lineage.send()


def main() -> None:
    """Watch until ended."""

    def report(text: str) -> None:
        with suppress(OSError):  # the disk that its log is on may be full
            print(text, flush=True)

    landing, champions, registrations = LandingWatch(), ChampionWatch(), RegistrationWatch()
    recovery, blockers, page = CrashRecovery(), BlockerWatch(), PageRefresher()
    loop = PollingLoop(
        {
            "runs": (recovery.look, RECOVERY_SECONDS),
            "landing": (lambda: landing.look(params.load()), 0.0),
            "champions": (lambda: champions.look(params.load()), 0.0),
            "deployments": (lambda: registrations.look(params.load()), REGISTRATION_SECONDS),
            "blockers": (lambda: blockers.look(params.load()), BLOCKERS_SECONDS),
        },
        report,
    )
    lineage = {"lineage": (_tell_lineage, LINEAGE_SECONDS)} if open_lineage.is_on() else {}
    # these go on while Prefect does not answer
    page_loop = PollingLoop({"page": (page.look, PAGE_SECONDS), **lineage}, report)
    pause: Callable[[], object] | None = None
    while True:
        loop.poll()
        page_loop.poll()
        with suppress(OSError):
            heartbeat = watcher_heartbeat()
            heartbeat.parent.mkdir(parents=True, exist_ok=True)
            heartbeat.touch()
        pause = pause or _pause(report)
        if pause:
            pause()
        else:
            time.sleep(FOLDER_SECONDS)


def _pause(report: Callable[[str], object]) -> Callable[[], object] | None:
    """What waits for the next round; None as long as params.yaml cannot be read."""
    try:
        landing = params.load().landing
    except EvergreenError:
        return None
    report(f"watches {addresses.masked(landing)}")
    place = zones.landing(landing)
    return _on_changes(place.local) if place.local else lambda: time.sleep(BUCKET_SECONDS)


def _on_changes(folder: Path) -> Callable[[], object]:
    """Waits for a change below a folder, at most FOLDER_SECONDS; the folder may not be mounted yet."""
    from watchfiles import watch

    timeout = int(FOLDER_SECONDS * 1000)

    def changes() -> Iterator[object]:
        while True:
            try:
                yield from watch(
                    folder, step=50, debounce=200, yield_on_timeout=True, rust_timeout=timeout, raise_interrupt=False
                )
            except FileNotFoundError:
                time.sleep(FOLDER_SECONDS)
                yield None

    return changes().__next__


if __name__ == "__main__":
    main()
