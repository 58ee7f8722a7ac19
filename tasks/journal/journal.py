"""Journal: one chain of lines for each model and one for the platform, appended to and read.

    var/journal/<model>.jsonl, platform.jsonl    a line an act: who did what, when, on which bytes, and why
    var/journal/<chain>.head.json                number and hash of the newest line

A line holds the hash of the line before it, and is signed. It is written first, its head after it: a kill in between
leaves a chain that is one line ahead, which the next line makes good. Where lines are missing or changed, the next one
continues from what the head says: what happened goes on being written, and the gap stays to be seen
(docs/decisions/journal.md).
"""

from __future__ import annotations

import hashlib
import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from tasks.ground import files, json_lines, leases, paths
from tasks.journal import signing

PLATFORM = "platform"
"""The chain of what concerns no model alone."""

Kind = Literal[
    "data",  # a data version was made, or brought
    "training",  # a candidate was tracked
    "verdict",  # the gate judged
    "decision",  # whether to train
    "approval",  # a person's yes
    "registered",  # a candidate became challenger
    "promotion",
    "rollback",
    "withdrawal",
    "alias",  # of MLflow, moved by hand
    "batch",  # rows were scored into a folder
    "rollout",  # a release went live, or was withdrawn
    "stage",  # a release is tried: warm, or with a share of the requests
    "alarm",  # opened or closed
    "acknowledged",
    "erasure",  # rows are to leave the prediction log
    "key",  # of the API: added or removed
    "policy",  # other rules than before: promotion.yaml, the model's section of params.yaml
]
KINDS: tuple[Kind, ...] = get_args(Kind)

SHOWN = (
    *("version", "candidate", "challenger", "outcome", "share", "promoted", "retrain", "summary", "key", "change"),
    *("name", "by", "how", "promotion", "section", "answered"),
)
"""What a line for a terminal shows of an act, in this order."""

_run: ContextVar[str] = ContextVar("run", default="")


@dataclass(frozen=True)
class Line:
    """A line, as it is read."""

    number: int
    time: str
    """UTC."""
    kind: str
    who: str
    """The account that did it: `os:` and its name."""
    what: dict[str, Any]
    why: str = ""
    run: str = ""
    """The address of the flow run in which it was done."""
    tokens: dict[str, int] = field(default_factory=dict)
    """Lease → the fencing token with which it was written, where machines share leases."""
    imported: str = ""
    """The file of an earlier build that it was taken from."""

    @classmethod
    def of(cls, value: dict[str, Any]) -> Line:
        """From the JSON of a line."""
        optional = {name: value[name] for name in ("why", "run", "tokens", "imported") if name in value}
        return cls(value["number"], value["time"], value["kind"], value["who"], value["what"], **optional)

    @property
    def flat(self) -> dict[str, Any]:
        """What was done, with when, in which run and why, in one dictionary."""
        return {**self.what, "time": self.time, "run": self.run, "why": self.why}

    def __str__(self) -> str:
        told = {name: value for name, value in self.what.items() if value or value is False}
        scalars = {name: value for name, value in told.items() if isinstance(value, str | int | float)}
        shown = [f"{name} {str(scalars[name])[:60]}" for name in SHOWN if name in scalars]
        why = f": {self.why}" if self.why else ""
        return f"{self.number:>5}  {self.time[:19]}  {self.kind:<12}  {self.who:<12}  {', '.join(shown)}{why}"


# ── writing ───────────────────────────────────────────────────────────────────────────────────────


def append(
    chain: str, kind: Kind, what: dict[str, Any], why: str = "", *, time: str | None = None, who: str | None = None
) -> None:
    """Write down an act; it is on the disk when this returns.

    Raises:
        JournalDamaged: the key is not the journal's.
        LeaseLost: another process has taken over what this one was at.
        OSError: no space is left.
    """
    own = {"time": time or now(), "kind": kind, "who": who or account(), "what": what, "why": why, "run": _run.get()}
    with leases.fenced(), files.lock(f"journal-{chain}"):
        own["tokens"] = {lease.title: lease.token for lease in leases.taken()}
        write(chain, own)


def write(chain: str, own: dict[str, Any]) -> None:
    """Write a line; the caller holds the chain's lock."""
    json_lines.repair(paths.journal(chain))
    number, before = _end(chain)
    line = signed(chain, number + 1, before, own)
    json_lines.append_line(paths.journal(chain), line)
    set_head(chain, number + 1, line, own["time"])


def signed(chain: str, number: int, before: str, own: dict[str, Any]) -> bytes:
    """A line of a chain; what is empty is left out."""
    filled = {name: value for name, value in own.items() if value or name == "what"}
    return signing.signed({"chain": chain, "number": number, "before": before, **filled})


def set_head(chain: str, number: int, line: bytes, time: str) -> None:
    """Name the newest line in the chain's head, in one step."""
    head = {"chain": chain, "number": number, "hash": sha256(line), "time": time, "key": signing.public()}
    files.write_text(paths.journal_head(chain), signing.signed(head).decode() + "\n")


def _end(chain: str) -> tuple[int, str]:
    """Number and hash of what the next line continues."""
    last, head = _last_line(paths.journal(chain)), head_of(chain)
    value = parse(chain, last) if last else None
    if value and (head is None or value["number"] >= head["number"]):
        if head is None or value["number"] > head["number"]:  # a writer was killed: no head may be two lines behind
            set_head(chain, value["number"], last, value["time"])
        return int(value["number"]), sha256(last)
    if head:
        return int(head["number"]), str(head["hash"])
    return (paths.journal(chain).read_bytes().count(b"\n"), sha256(last)) if last else (0, "")


def parse(chain: str, line: bytes) -> dict[str, Any] | None:
    """A line of a chain; None where it is not as it was written, or something else that was signed: a head."""
    value = signing.parse(line)
    return value if value and value.get("chain") == chain and "before" in value else None


def _last_line(path: Path) -> bytes:
    """The newest line that a newline ends; empty where there is none."""
    return next(_from_the_end(path), b"")


def head_of(chain: str) -> dict[str, Any] | None:
    """The head of a chain; None where there is none, or it was changed."""
    try:
        text = paths.journal_head(chain).read_bytes()
    except FileNotFoundError:
        return None
    head = signing.parse(text.removesuffix(b"\n")) if text.endswith(b"\n") else None
    return head if head and head.get("chain") == chain and "hash" in head else None


def signed_head(chain: str) -> dict[str, Any] | None:
    """The head with its signature, to be kept elsewhere; None as `head_of`."""
    return files.read_json(paths.journal_head(chain)) if head_of(chain) else None


def sha256(line: bytes) -> str:
    """The hash of a line, without its newline."""
    return hashlib.sha256(line).hexdigest()


def now() -> str:
    """The time, UTC, as it is written down."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def account() -> str:
    """The account that this process runs as; no variable of the environment changes it."""
    try:
        return f"os:{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:
        return f"os:{os.getuid()}"


@contextmanager
def in_run(url: str) -> Iterator[None]:
    """What is written within the block was done by a flow run."""
    token = _run.set(url)
    try:
        yield
    finally:
        _run.reset(token)


# ── reading ───────────────────────────────────────────────────────────────────────────────────────


def lines(chain: str, *kinds: Kind) -> tuple[Line, ...]:
    """The lines of some kinds (of all, if none is named), oldest first. A torn one is left out; none is verified."""
    path = paths.journal(chain)
    try:
        state = files.state_of(path)
    except FileNotFoundError:
        return ()
    return _lines(path, state, kinds)


@lru_cache(maxsize=64)
def _lines(path: Path, state: object, kinds: tuple[Kind, ...]) -> tuple[Line, ...]:  # noqa: ARG001 - a change changes it
    written = path.read_bytes().split(b"\n")
    return tuple(_chosen(json_lines.values((line for line in written if _may_be(line, kinds)), path), kinds))


@dataclass(frozen=True)
class MissingLines:
    """Lines that are missing in a chain, as far as their numbers tell; `verify` tells all."""

    first: int
    last: int
    since: str
    """The time of the line before them; empty where none is."""

    def __str__(self) -> str:
        return f"lines {self.first} to {self.last}" if self.last > self.first else f"line {self.first}"


def gaps(chain: str) -> list[MissingLines]:
    """Where lines are missing between others, or after the last one."""
    missing, before, since = [], 0, ""
    for line in lines(chain):
        if line.number > before + 1:
            missing.append(MissingLines(before + 1, line.number - 1, since))
        before, since = max(before, line.number), line.time
    head = json_lines.value(paths.journal_head(chain).read_bytes()) if paths.journal_head(chain).exists() else None
    newest = head["number"] if isinstance(head, dict) and isinstance(head.get("number"), int) else 0
    return missing + ([MissingLines(before + 1, newest, since)] if newest > before else [])


def last(chain: str, *kinds: Kind) -> Line | None:
    """The newest line of some kinds, read from the end."""
    for line in _from_the_end(paths.journal(chain)):
        if _may_be(line, kinds) and (found := _chosen([json_lines.value(line)], kinds)):
            return found[0]
    return None


def newest(chain: str, count: int, *kinds: Kind) -> list[Line]:
    """At most so many of the newest lines of some kinds, oldest first, read from the end."""
    chosen: list[Line] = []
    for line in _from_the_end(paths.journal(chain)):
        if _may_be(line, kinds):
            chosen += _chosen([json_lines.value(line)], kinds)
        if len(chosen) == count:
            break
    return chosen[::-1]


def verified(chain: str, *kinds: Kind) -> list[Line]:
    """As `lines`, those with the journal's own signature: for what nobody may forge."""
    try:
        written = paths.journal(chain).read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    values = [parse(chain, line) for line in written if _may_be(line, kinds)]
    return _chosen([value for value in values if value], kinds)


def _may_be(line: bytes, kinds: tuple[Kind, ...]) -> bool:
    """Whether a line may be of these kinds, without parsing it: its JSON is canonical."""
    return not kinds or any(f'"kind":"{kind}"'.encode() in line for kind in kinds)


def _chosen(values: list[Any], kinds: tuple[Kind, ...]) -> list[Line]:
    lines = []
    for value in values:
        try:
            line = Line.of(value)
        except (LookupError, TypeError):
            continue  # torn, or no line: `verify` tells where
        if not kinds or line.kind in kinds:
            lines.append(line)
    return lines


BLOCK = 1 << 16


def _from_the_end(path: Path) -> Iterator[bytes]:
    """Whole lines, the newest first; what no newline ends yet is left out."""
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        return
    with stream:
        end, rest = stream.seek(0, os.SEEK_END), b""
        is_first = True
        while end:
            begin = max(0, end - BLOCK)
            stream.seek(begin)
            rest = stream.read(end - begin) + rest
            head, *whole = rest.split(b"\n")
            if whole and is_first:
                whole, is_first = whole[:-1], False
            elif not whole:
                end = begin
                continue
            yield from reversed([line for line in whole if line])
            end, rest = begin, head
        if not is_first and rest:
            yield rest
