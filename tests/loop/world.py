"""One project and what happens to it: deliveries, hand edits, and processes that run and are killed."""

from __future__ import annotations

import hashlib
import json
import random
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.loop.kills import KINDS
from tests.loop.platform import Platform, Started

MOST = {
    "ingest": {"zones": 9, "memo": 24, "data": 8, "cache": 24, "books": 3, "remote": 26, "locks": 12},
    "train": {
        "build": 240, "cache": 280, "books": 15, "locks": 40, "memo": 9, "bento": 12, "registry": 30, "artifacts": 107,
        "champions": 48, "settled": 4,
    },
}  # fmt: skip
"""About how many boundaries of each kind a run has: whom a kill is due at the last may live."""

WEIGHT = {"registry": 5, "bento": 2, "settled": 1.5, "cache": 1, "books": 2, "champions": 0.7, "locks": 0.5}
"""How much more likely a kind is chosen."""


@dataclass(frozen=True)
class Delivery:
    """A file that was put into the landing zone."""

    path: str
    md5: str
    valid: bool
    overwritten: list[bool] = field(default_factory=lambda: [False])
    """Whether the sender put another one over it before it was taken in."""

    @property
    def stem(self) -> str:
        """The partition's name."""
        return Path(self.path).stem


@dataclass
class World:
    """A project, what was delivered to it, and what was killed in it."""

    platform: Platform
    root: Path
    rng: random.Random
    """What the schedule chooses: the same for a seed, whoever lives or dies."""
    fate: random.Random = field(default_factory=lambda: random.Random(0))
    """Who is killed where, and who is woken again."""
    verbose: bool = False
    deliveries: list[Delivery] = field(default_factory=list)
    by_hand: dict[str, str] = field(default_factory=dict)
    kills: int = 0
    runs: int = 0
    happened: set[str] = field(default_factory=set)
    """The kinds of events that there were."""

    def tell(self, what: str) -> None:
        """Say what happens, to whoever replays a seed; and into the project's log."""
        if self.verbose:
            print(f"    {what}", flush=True)
        with Path(f"{self.root}.log").open("a") as log:
            log.write(f"──── {what}\n")

    @staticmethod
    def digest(content: bytes) -> str:
        """The MD5 of a content, as data.dvc's listing names it."""
        return hashlib.md5(content, usedforsecurity=False).hexdigest()

    # ── what others do ────────────────────────────────────────────────────────────────────────────

    def deliver(self, path: str, content: bytes, valid: bool) -> None:
        """Put a file into the landing zone, as a sender does who writes beside and renames."""
        target = self.root / "var" / "landing" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.parent / f".{target.name}.sending"
        beside.write_bytes(content)
        if target.exists():  # the one that lies there came last; those before it were taken in, or overwritten by it
            next(one for one in reversed(self.deliveries) if one.path == path).overwritten[0] = True
        beside.replace(target)
        one = Delivery(path, self.digest(content), valid)
        self.deliveries.append(one)
        self.tell(f"delivered {path} {one.md5[:8]} {'valid' if valid else 'invalid'}")

    def put_by_hand(self, name: str, content: bytes) -> None:
        """A person puts a file into data/."""
        target = self.root / "data" / "readings" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = self.root / "var" / name
        beside.parent.mkdir(exist_ok=True)
        beside.write_bytes(content)
        beside.replace(target)
        self.by_hand[name] = self.digest(content)
        self.tell(f"by hand: data/readings/{name}")

    def edit(self, pattern: str, value: str) -> None:
        """A person changes a number in params.yaml."""
        path = self.root / "params.yaml"
        text, count = re.subn(pattern, rf"\g<1>{value}", path.read_text())
        assert count == 1, pattern
        beside = self.root / "var" / "params.yaml"
        beside.parent.mkdir(exist_ok=True)
        beside.write_text(text)
        beside.replace(path)
        self.tell(f"by hand: params.yaml: {pattern} {value}")

    # ── processes ─────────────────────────────────────────────────────────────────────────────────

    def start(self, *arguments: str, deadly: float = 0.0) -> Started:
        """Start a flow; with a probability of `deadly` it is killed at a boundary that the seed chooses."""
        kill = self._choose_kill(arguments[0]) if self.fate.random() < deadly else None
        self.tell(f"{' '.join(arguments)} {'' if kill is None else kill}")
        self.runs += 1
        return self.platform.start(self.root, "flows", *arguments, kill=kill)

    def ended(self, started: Started) -> int:
        """Wait for a process."""
        code = started.wait()
        if code == -9:
            self.kills += 1
        self.tell(f"{' '.join(started.what[1:])} ended: {'killed' if code == -9 else code}")
        return code

    def wake(self, *arguments: str, deadly: float = 0.0) -> int:
        """Run a flow."""
        return self.ended(self.start(*arguments, deadly=deadly))

    def _choose_kill(self, flow: str) -> dict[str, Any]:
        most = MOST[flow]
        kind = self.fate.choices(list(most), [WEIGHT.get(kind, 1.0) for kind in most])[0]
        delay = self.fate.choice([None, None, 0.0, self.fate.uniform(0, 0.03)])
        return {"kind": kind, "at": self.fate.randint(1, most[kind]), "delay": delay}


assert set(WEIGHT) <= set(KINDS)


def spoiled(content: bytes, how: str) -> bytes:
    """A partition that must not be learned from."""
    lines = content.splitlines(keepends=True)
    if how == "short":
        return b"".join(lines[:20])
    if how == "garbage":
        return b"\x00\xff not a table" + content[:200]
    head = lines[0].decode().strip().split(",")
    cells = [line.decode().strip().split(",") for line in lines[1:]]
    for row in cells[3:9]:
        row[head.index({"nulls": "pressure", "month": "month", "text": "starts"}[how])] = {
            "nulls": "", "month": "12", "text": "many",
        }[how]  # fmt: skip
    return "\n".join([lines[0].decode().strip(), *(",".join(row) for row in cells)]).encode() + b"\n"


def load(path: Path) -> Any:
    """JSON."""
    return json.loads(path.read_text(encoding="utf-8"))
