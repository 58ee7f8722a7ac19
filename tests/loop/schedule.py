"""A schedule: what a seed lets happen to a project, in an order and at moments that it chooses."""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.loop.platform import Platform
from tests.loop.world import World, spoiled

DEADLY = 0.6
"""How likely a process is killed while the schedule lasts."""

ESTIMATOR, GATE = r"(params: \{C: )[0-9.]+", r"(roc_auc: )[0-9.]+"


def play(platform: Platform, seed: int, *, deadly: float = DEADLY, verbose: bool = False) -> World:
    """Let a schedule happen; nothing is at rest yet when it ends."""
    rng = random.Random(seed)
    world = World(platform, platform.project(f"seed-{seed}"), rng, random.Random(-seed - 1), verbose)
    months = rng.sample(range(1, 5), 4) if rng.random() < 0.5 else list(range(1, 5))
    for _ in range(2):
        _arrive(world, months)
    _wake(world, deadly, kinds=("in order", "at once"))
    for _ in range(rng.choice([1, 1, 1, 2])):
        for happen in rng.choices(
            [_arrive, _twice, _bad, _other, _edit, _hand], [4, 2, 3, 2, 2, 1], k=rng.randint(1, 3)
        ):
            world.happened.add(happen.__name__)
            happen(world, months)
        _wake(world, deadly)
    if len({one.stem for one in world.deliveries if one.valid and not one.overwritten[0]} | set(world.by_hand)) < 2:
        for month in (8, 9):  # a sender has taken back so much that nothing is left to train on
            world.deliver(f"readings/2013-{month:02d}.csv", world.platform.content(month), valid=True)
    return world


def _arrive(world: World, months: list[int]) -> None:
    """A new partition; the schedule may have shuffled the months."""
    if months:
        month = months.pop(0)
        world.deliver(f"readings/2013-{month:02d}.csv", world.platform.content(month), valid=True)


def _twice(world: World, months: list[int]) -> None:
    """What was delivered before, once more."""
    if sent := [one for one in world.deliveries if one.valid]:
        again = world.rng.choice(sent)
        for variant in range(4):
            content = world.platform.content(int(again.stem[-2:]), variant)
            if world.digest(content) == again.md5:
                world.deliver(again.path, content, valid=True)


def _other(world: World, months: list[int]) -> None:
    """The same name with other content; in another format, it does not lie over the first one."""
    if sent := [one for one in world.deliveries if one.valid]:
        again = world.rng.choice(sent)
        content = world.platform.content(int(again.stem[-2:]), world.rng.randint(1, 3))
        world.deliver(f"readings/{again.stem}.csv", content, valid=True)


def _bad(world: World, months: list[int]) -> None:
    """A file that must be refused."""
    month = world.rng.randint(1, 4)
    name = f"2013-{month:02d}"
    how = world.rng.choice(["nulls", "month", "short", "garbage", "text", "suffix", "dataset", "name"])
    content = world.platform.content(month, 8)
    if how == "suffix":
        world.deliver(f"readings/{name}.xlsx", content, valid=False)
    elif how == "dataset":
        world.deliver(f"reading/{name}.csv", content, valid=False)
    elif how == "name":
        world.deliver(f"readings/{name} (1).csv", content, valid=False)
    else:
        world.deliver(f"readings/{name}.csv", spoiled(content, how), valid=False)


def _edit(world: World, months: list[int]) -> None:
    """A person edits params.yaml: an estimator's number, or the gate's."""
    if world.rng.random() < 0.7:
        world.edit(ESTIMATOR, world.rng.choice(["1.0", "0.1"]))
    else:
        world.edit(GATE, world.rng.choice(["0.6", "0.65", "0.99"]))


def _hand(world: World, months: list[int]) -> None:
    """A person puts a partition into data/ past ingest, and makes a version of it or does not."""
    month = 12
    world.put_by_hand(f"2013-{month}.csv", world.platform.content(month))
    if world.rng.random() < 0.7:
        world.platform.run(world.root, "add")


# ── wake-ups ──────────────────────────────────────────────────────────────────────────────────────


def _wake(
    world: World, deadly: float, kinds: tuple[str, ...] = ("in order", "at once", "late", "burst", "lost")
) -> None:
    how = world.rng.choices(kinds, [5, 4, 2, 1, 1][: len(kinds)])[0]
    world.happened.add(how)
    WAKES[how](world, deadly)


def _in_order(world: World, deadly: float) -> None:
    """ingest, then train; who was killed may be woken again."""
    for flow in (("ingest",), ("train", "tiny")):
        while world.wake(*flow, deadly=deadly) == -9 and world.fate.random() < 0.6:
            pass


def _at_once(world: World, deadly: float) -> None:
    """Both flows in several processes at the same time; some arrive while they run."""
    flows = [("ingest",), ("train", "tiny"), *([("ingest",)] if world.rng.random() < 0.3 else [])]
    flows += [("train", "tiny")] if world.rng.random() < 0.5 else []
    started = [world.start(*flow, deadly=deadly) for flow in flows]
    if world.rng.random() < 0.4:
        _bad(world, [])
    if world.rng.random() < 0.2:
        _edit(world, [])
    for one in started:
        world.ended(one)


def _late(world: World, deadly: float) -> None:
    """The training's wake-up comes first, the delivery's after it."""
    world.wake("train", "tiny", deadly=deadly)
    world.wake("ingest", deadly=deadly)


def _burst(world: World, deadly: float) -> None:
    """A hundred wake-ups: four processes with 25 each, one of them killed."""
    started = [world.start("ingest", deadly=deadly)]
    each = 25 if world.rng.random() < 0.2 else 3
    started += [world.start("train", "tiny", f"*{each}", deadly=deadly if n == 0 else 0) for n in range(4)]
    for one in started:
        world.ended(one)


def _lost(world: World, deadly: float) -> None:
    """Nobody is woken."""
    world.tell("no wake-up")


WAKES: dict[str, Callable[[World, float], None]] = {
    "in order": _in_order,
    "at once": _at_once,
    "late": _late,
    "burst": _burst,
    "lost": _lost,
}
