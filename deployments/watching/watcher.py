"""The watcher: files that wait in the landing zone wake ingest, a champion that does not serve wakes rollout.

It also has the server know what params.yaml names (registration.py), notices what was killed (mend.py), says what
stands in the way (blockers.py), and keeps the status page new (page/refresher.py).

It looks at what is, not at what happened: a file that came while nobody watched, a wake that got lost, an ingest that
was killed are all the same sight. A folder's changes wake the watcher at once; a bucket is looked at every few seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from deployments.orchestration.blockers import Blockers
from deployments.status_page.refresher import PageRefresher
from deployments.watching.backoff import Backoff
from deployments.watching.champion_watch import ChampionWatch
from deployments.watching.crash_recovery import CrashRecovery
from deployments.watching.registration_watch import Registration
from flows.prefect_support import announcements, api, triggers
from flows.prefect_support.triggers import under_way
from tasks.data import versions
from tasks.data.places import Place, masked
from tasks.ground import params
from tasks.ground.errors import EvergreenError, WorldError
from tasks.ground.paths import watcher_heartbeat

FOLDER_SECONDS, BUCKET_SECONDS = 2.0, 5.0
"""The longest time between two looks."""

MEND_SECONDS, REGISTRATION_SECONDS, BLOCKERS_SECONDS = 5.0, 5.0, 15.0
"""How often it is looked whether a run was killed, what the server lacks, and what stands in the way."""

LATEST = "data.dvc"
"""Stands for a data version that nobody was told of among the files that wait."""


@dataclass
class Watcher:
    """What it has seen and done."""

    say: Callable[[str], object] = print
    clock: Callable[[], float] = time.monotonic
    backoff: Backoff = field(init=False)

    def __post_init__(self) -> None:
        self.backoff = Backoff(self.clock)

    def look(self, said: params.Params) -> None:
        """Look once; wake ingest if it is needed.

        Raises:
            PrefectApiError: the Prefect server does not answer.
            WorldError: ingest cannot be woken.
        """
        waiting = frozenset((landed.path, landed.seen) for landed, _ in Place.of(said.landing, "landing").look())
        before, version = announcements.version(), versions.current()
        if before and version and before != version:
            waiting |= {(LATEST, version)}
        if not waiting or not self.backoff.is_due(waiting) or under_way("ingest/ingest"):
            return
        fresh = waiting - (self.backoff.cause or frozenset())
        run = triggers.trigger("ingest/ingest")
        if run is None:
            raise WorldError(
                "the Prefect server knows no ingest/ingest yet: `make up` registers it, as does `evergreen register`"
            )
        again = " (still there: once more)" if self.backoff.acted(waiting) else ""
        self.say(f"{_named(fresh or waiting)}{again}: ingest is woken, {api.run_url(run)}")


def _named(waiting: frozenset[tuple[str, str]]) -> str:
    """What waits, in words."""
    names = sorted("/".join(Path(path).parts[-2:]) for path, _ in waiting if path != LATEST)
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    landed = [f"{', '.join(names[:4])}{more} in the landing zone"] if names else []
    version = [f"data version {seen} that nobody was told of" for path, seen in waiting if path == LATEST]
    return ", ".join([*landed, *version])


@dataclass
class Rounds:
    """What is looked at in turn: what one look cannot do keeps no other from what it does, and is told once."""

    looks: Mapping[str, tuple[Callable[[], Iterable[str] | None], float]]
    """Name → what gives a line for each thing it did, and the least seconds between two of its looks."""
    say: Callable[[str], object] = print
    clock: Callable[[], float] = time.monotonic
    troubles: dict[str, str] = field(default_factory=dict)
    """Look → what it could not do the last time."""
    looked: dict[str, float] = field(default_factory=dict)

    def go(self) -> None:
        """Look at all that is due."""
        before = set(self.troubles.values())
        for name, (look, seconds) in self.looks.items():
            if self.clock() - self.looked.get(name, float("-inf")) < seconds:
                continue
            self.looked[name] = self.clock()
            try:
                for line in look() or ():
                    self.say(line)
                self.troubles.pop(name, None)
            except (EvergreenError, OSError) as error:  # a full disk, say
                self.troubles[name] = f"{type(error).__name__}: {error}"
                if isinstance(error, api.PrefectApiError):
                    break  # the others would wait for it as well
        now = set(self.troubles.values())
        for trouble in sorted(now - before):
            self.say(trouble)
        if before and not now:
            self.say("all is well again")


def main() -> None:
    """Watch until ended."""

    def say(text: str) -> None:
        with suppress(OSError):  # the disk that its log is on may be full
            print(text, flush=True)

    watcher, promotions, refresher = Watcher(say), ChampionWatch(under_way), PageRefresher(say)
    mender, registration, blockers = CrashRecovery(), Registration(), Blockers()
    rounds = Rounds(
        {
            "runs": (mender.look, MEND_SECONDS),
            "landing": (lambda: watcher.look(params.load()), 0.0),
            "champions": (lambda: promotions.look(params.load()), 0.0),
            "deployments": (lambda: registration.look(params.load()), REGISTRATION_SECONDS),
            "blockers": (lambda: blockers.look(params.load()), BLOCKERS_SECONDS),
        },
        say,
    )
    pause: Callable[[], object] | None = None
    while True:
        rounds.go()
        refresher.look()
        with suppress(OSError):
            heartbeat = watcher_heartbeat()
            heartbeat.parent.mkdir(parents=True, exist_ok=True)
            heartbeat.touch()
        pause = pause or _pause(say)
        (pause or _short)()


def _pause(say: Callable[[str], object]) -> Callable[[], object] | None:
    """What waits until there may be something to see; None as long as params.yaml cannot be read."""
    try:
        landing = params.load().landing
    except EvergreenError:
        return None
    say(f"watches {masked(landing)}")
    place = Place.of(landing, "landing")
    return _on_changes(Path(place.root)) if place.local else lambda: time.sleep(BUCKET_SECONDS)


def _short() -> None:
    time.sleep(FOLDER_SECONDS)


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
