"""`python -m tests.loop.soak --schedules 200 --kills 200`: random schedules, until so many of them and so many kills.

One of them again, with all that happens in it: `--seed N --schedules 1 --kills 0 -v`; `--keep` keeps its project.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tests.loop import invariants, schedule
from tests.loop.invariants import Fault
from tests.loop.platform import Platform, platform
from tests.loop.world import World, load


@dataclass
class Result:
    """What became of one schedule."""

    seed: int
    kills: int
    runs: int
    seconds: float
    faults: list[Fault] = field(default_factory=list)
    happened: set[str] = field(default_factory=set)


def play(shared: Platform, seed: int, *, verbose: bool = False, keep: bool = False) -> Result:
    """Let the schedule of a seed happen, bring it to rest, and look."""
    begin = time.monotonic()
    world = schedule.play(shared, seed, verbose=verbose)
    try:
        found = rest(world)
    except Exception:  # noqa: BLE001 - a project that is broken beyond looking is a finding
        found = [Fault("half", f"it cannot be looked at: {traceback.format_exc()}")]
    if not found and not keep:
        shutil.rmtree(world.root)
        Path(f"{world.root}.log").unlink()
    return Result(seed, world.kills, world.runs, time.monotonic() - begin, found, world.happened)


def rest(world: World) -> list[Fault]:
    """Two quiet flows bring the project to rest; two more find nothing to do. Gives what is wrong."""
    world.tell("to rest")
    for flow in (("ingest",), ("train", "tiny")):
        if code := world.wake(*flow):
            return [Fault("half", f"{' '.join(flow)} cannot bring it to rest: {code}\n{said(world)}")]
    found = invariants.faults(world)
    before = _state(world.root)
    for flow in (("ingest",), ("train", "tiny")):
        world.wake(*flow)
    after = _state(world.root)
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    if changed:
        found.append(Fault("doubled", f"with nothing to do, these changed: {changed}"))
    return found + _as_without_kills(world)


def said(world: World, most: int = 3000) -> str:
    """The end of the project's log."""
    return Path(f"{world.root}.log").read_text()[-most:]


def _state(root: Path) -> dict[str, str]:
    """All that the project keeps, apart from what only saves time."""
    held = {name: sha for part in ("build", "data", "var") for name, sha in _tree(root, part).items()}
    held |= {name: hashlib.sha256((root / name).read_bytes()).hexdigest() for name in ("data.dvc", "dvc.lock")}
    return held


def _tree(root: Path, part: str) -> dict[str, str]:
    held = {f"{part}/{name}": sha for name, sha in invariants.tree(root / part).items()}
    return {name: sha for name, sha in held.items() if not name.startswith(("var/dvc/", "var/memo/", "var/locks/"))}


# ── the same without kills ────────────────────────────────────────────────────────────────────────


_known: dict[tuple[str, str], tuple[str, str, str]] = {}
_making = threading.Lock()


def _end(root: Path) -> tuple[str, str, str]:
    """data.dvc, what dvc.lock says, and the candidate."""
    lock = yaml.safe_dump(yaml.safe_load((root / "dvc.lock").read_text()), sort_keys=True)
    return (root / "data.dvc").read_text(), lock, invariants.candidate(root)


def _as_without_kills(world: World) -> list[Fault]:
    """A project that got the same, in order and undisturbed, has the same data version, hashes and candidate."""
    params = (world.root / "params.yaml").read_text()
    key = ((world.root / "data.dvc").read_text(), params.partition("gate:")[0])
    with _making:
        if key not in _known:
            _known[key] = _undisturbed(world, params)
    names = ("data.dvc", "dvc.lock", "the candidate")
    both = zip(names, _end(world.root), _known[key], strict=True)
    return [Fault("half", f"{name} is not as without kills:\n{a}\n{b}") for name, a, b in both if a != b]


def _undisturbed(world: World, params: str) -> tuple[str, str, str]:
    root = world.platform.project(f"undisturbed-{len(_known)}")
    (root / "params.yaml").write_text(params)
    calm = World(world.platform, root, world.rng)
    known = invariants.revisions(world.root)
    histories = {name: known.get(name.removesuffix(".csv"), [md5]) for name, md5 in invariants.data(world.root).items()}
    for number in range(max(map(len, histories.values()))):
        for name, history in histories.items():
            if number < len(history):
                calm.deliver(name, invariants.content(world.root, history[number]), valid=True)
        assert world.platform.run(root, "flows", "ingest") == 0, said(calm)
    assert world.platform.run(root, "reproduce", "tiny") == 0, said(calm)
    made = _end(root)
    shutil.rmtree(root)
    return made


# ── every boundary ────────────────────────────────────────────────────────────────────────────────


SITUATIONS = {
    "ingest": ("ingest",),  # a new partition lies in the landing zone
    "train": ("train", "tiny"),  # an edited parameter: the graph runs
    "promotion": ("train", "tiny"),  # the graph has run: a better model waits to be judged
}
"""Where a project stands → the flow that comes next."""

EVERY = {"registry": ["promotion"], "settled": ["promotion"], "books": ["ingest", "train"]}
"""Kind of boundary → the situations whose flow has such ones."""


class Boundaries:
    """A project in a situation; and the flow that comes next, killed anywhere.

    It lies always at the same place, as MLflow's store names its artifacts by their path.
    """

    def __init__(self, shared: Platform, situation: str = "promotion") -> None:
        self.flow = ("flows", *SITUATIONS[situation])
        self.world = World(shared, shared.project(situation), random.Random(0))
        self.kept = shared.base / f"{situation}-kept"
        for month in (1, 2):
            self.world.deliver(f"readings/2013-{month:02d}.csv", shared.content(month), valid=True)
        self.world.edit(schedule.ESTIMATOR, "0.0001")
        codes = [self.world.wake("ingest"), self.world.wake("train", "tiny")]
        if situation == "ingest":
            self.world.deliver("readings/2013-03.csv", shared.content(3), valid=True)
        else:
            self.world.edit(schedule.ESTIMATOR, "1.0")
        if situation == "promotion":
            codes.append(shared.run(self.world.root, "reproduce", "tiny"))
        assert not any(codes), said(self.world)
        shutil.copytree(self.world.root, self.kept, symlinks=True)

    def count(self, kind: str) -> int:
        """How many boundaries of a kind the flow has."""
        self._begin_again()
        counts = Path(f"{self.world.root}.counts")
        assert self.world.platform.run(self.world.root, *self.flow, counts=str(counts)) == 0
        assert "nothing to do" not in said(self.world, 500), said(self.world)
        return int(load(counts)[kind])

    def kill(self, kind: str, at: int) -> list[Fault]:
        """Kill the flow at a boundary, and give what is wrong when the project is at rest again."""
        self._begin_again()
        kill = {"kind": kind, "at": at, "delay": None}
        code = self.world.platform.run(self.world.root, *self.flow, kill=kill)
        self.world.kills += code == -9
        found = [Fault("half", f"it was not killed at {kind} {at}: {code}")] if code != -9 else []
        return [Fault(f.kind, f"killed at {kind} {at}: {f.said}") for f in [*found, *rest(self.world)]]

    def _begin_again(self) -> None:
        shutil.rmtree(self.world.root)
        shutil.copytree(self.kept, self.world.root, symlinks=True)


def every(shared: Platform, kinds: list[str]) -> list[Result]:
    """Kill a flow at every boundary of some kinds, one after the other."""
    results: list[Result] = []
    begun: dict[str, Boundaries] = {}
    for kind, situation in [(one, place) for one in kinds for place in EVERY[one]]:
        if situation not in begun:
            begun[situation] = Boundaries(shared, situation)
        boundaries = begun[situation]
        most = boundaries.count(kind)
        for at in range(1, most + 1):
            begin = time.monotonic()
            found = boundaries.kill(kind, at)
            results.append(Result(at, 1, 4, time.monotonic() - begin, found))
            for fault in found:
                print(f"      {fault.kind}: {fault.said}", flush=True)
        wrong = sum(len(r.faults) for r in results[-most:])
        print(f"{situation} killed at each of {most} boundaries of kind {kind}: {wrong} faults", flush=True)
    return results


# ── many of them ──────────────────────────────────────────────────────────────────────────────────


def soak(shared: Platform, options: argparse.Namespace) -> list[Result]:
    """Schedules, some at a time, until there were enough of them and of kills."""
    results: list[Result] = []
    begin, seed, running = time.monotonic(), options.seed, set[Future[Result]]()
    with ThreadPoolExecutor(options.jobs) as pool:
        while True:
            more = seed - options.seed < options.schedules or sum(r.kills for r in results) < options.kills
            while more and len(running) < options.jobs:
                running.add(pool.submit(play, shared, seed, verbose=options.v, keep=options.keep))
                seed += 1
            if not running:
                return results
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for one in done:
                results.append(one.result())
                _progress(results, time.monotonic() - begin)


def _progress(results: list[Result], seconds: float) -> None:
    last = results[-1]
    kills = sum(r.kills for r in results)
    wrong = f"; {len(last.faults)} FAULTS" if last.faults else ""
    print(
        f"{len(results):4d} schedules, {kills:4d} kills, {seconds:6.0f} s; seed {last.seed}: {last.runs} runs, "
        f"{last.kills} kills in {last.seconds:.0f} s{wrong}",
        flush=True,
    )
    for fault in last.faults:
        print(f"      {fault.kind}: {fault.said}", flush=True)


def summary(results: list[Result], seconds: float) -> str:
    """The closing lines."""
    count = Counter(fault.kind for r in results for fault in r.faults)
    failed = [str(r.seed) for r in results if r.faults]
    return (
        f"schedules {len(results)}, flow runs {sum(r.runs for r in results)}, kills {sum(r.kills for r in results)}, "
        f"{seconds:.0f} s\nlost {count['lost']}, doubled {count['doubled']}, half states {count['half']}\n"
        f"seeds that failed: {', '.join(failed) or 'none'}"
    )


def main() -> int:
    """Returns 1 when anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=200)
    parser.add_argument("--kills", type=int, default=200, help="go on until there were so many")
    parser.add_argument("--seed", type=int, default=1, help="of the first schedule; the next ones follow it")
    parser.add_argument("--jobs", type=int, default=2, help="schedules at a time")
    parser.add_argument("--every", metavar="KINDS", help="first a promotion, killed at all of these: registry,…")
    parser.add_argument("--keep", action="store_true", help="keep the projects")
    parser.add_argument("-v", action="store_true", help="tell what happens")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers end too
    begin = time.monotonic()
    base = Path(tempfile.mkdtemp(prefix="evergreen-soak-"))
    with platform(base) as shared:
        print(f"ready after {time.monotonic() - begin:.0f} s; projects in {base}", flush=True)
        results = every(shared, options.every.split(",")) if options.every else []
        results += soak(shared, options)
    print(summary(results, time.monotonic() - begin))
    if any(r.faults for r in results) or options.keep:
        print(f"kept: {base}")
    else:
        shutil.rmtree(base)
    return int(any(r.faults for r in results))


if __name__ == "__main__":
    sys.exit(main())
