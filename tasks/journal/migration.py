"""Migration from state version 2: the lines of the former ledgers become lines of the journal, marked as imported.

    verdicts, decisions, approvals, rollouts/<model>.jsonl, predictions/<model>/erasures.jsonl    → the model's chain
    data/revisions.jsonl                                                                         → the platform's

All chains are written before a ledger is removed; killed anywhere, the next command goes on. `settings.apply` calls it.
A ledger with a line that cannot be taken over is kept in var/torn/. Where a chain has lines of this build already (who
restores a backup may lay an older state over a newer one), the former ones are appended to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.ground import files, json_lines, paths, settings
from tasks.journal import journal, signing

FORMER = {
    "verdicts/{}.jsonl": "verdict",
    "decisions/{}.jsonl": "decision",
    "approvals/{}.jsonl": "approval",
    "rollouts/{}.jsonl": "rollout",
    "predictions/{}/erasures.jsonl": "erasure",
    "data/revisions.jsonl": "data",
}
"""Below var/ → the kind of its lines; `{}` stands for a model."""


def run(stamp: Callable[[], object]) -> None:
    """Take over what there is, then stamp the state with its new version."""
    with files.lock("journal.migration"):  # with a dot: no chain has that lock
        taken_over = paths.journal(journal.PLATFORM).with_name("taken-over")
        if not taken_over.exists():
            for chain, own in _by_chain().items():
                _write(chain, own)
            files.write_text(taken_over, "the ledgers of state version 2 are in the journal\n")
        for path, _, _ in list(_ledgers()):
            path.unlink()
            with suppress(OSError):  # others are in it
                path.parent.rmdir()
        stamp()
        taken_over.unlink()


def _ledgers() -> Iterator[tuple[Path, str, str]]:
    """File, chain, kind."""
    for pattern, kind in FORMER.items():
        for path in sorted(settings.VAR.glob(pattern.format("*"))):
            model = path.parent.name if kind == "erasure" else path.stem
            yield path, journal.PLATFORM if kind == "data" else model, kind


def _by_chain() -> dict[str, list[dict[str, Any]]]:
    chains: dict[str, list[dict[str, Any]]] = {}
    for path, chain, kind in _ledgers():
        written = [line for line in path.read_bytes().split(b"\n") if line]
        taken = [own for line in written if (own := _taken_over(line, kind, path))]
        if len(taken) < len(written):
            files.set_aside(path, f"{len(written) - len(taken)} of its lines cannot be read", copy=True)
        chains.setdefault(chain, []).extend(taken)
    return {chain: sorted(own, key=_at) for chain, own in chains.items()}


def _at(own: dict[str, Any]) -> datetime:
    at = datetime.fromisoformat(own["time"])
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _taken_over(line: bytes, kind: str, path: Path) -> dict[str, Any] | None:
    """What the journal says of a former line; None where it is torn, or no such line."""
    try:
        own = _as_own(dict(json_lines.value(line)), kind, path.relative_to(settings.VAR).as_posix())
        _at(own)
        signing.canonical(own)
    except (TypeError, ValueError, LookupError):
        return None
    return own


def _as_own(rest: dict[str, Any], kind: str, source: str) -> dict[str, Any]:
    own = {"time": rest.pop("time", None) or rest.pop("at"), "kind": kind, "why": rest.pop("why", "")}
    own |= {"run": rest.pop("run", ""), "who": rest.pop("identity", "") or "unknown", "imported": source}
    if kind == "data":
        rest = {"revisions": {rest["partition"]: rest["revision"]}}
    rest.pop("model", None)
    return {**own, "what": rest}


def _write(chain: str, own: list[dict[str, Any]]) -> None:
    """The whole chain, and its head."""
    if any(not line.imported for line in journal.lines(chain)):
        _append(chain, own)
        return
    content, before = b"", ""
    for number, fields in enumerate(own, 1):
        line = journal.signed(chain, number, before, fields)
        content, before = content + line + b"\n", journal.sha256(line)
    with files.replacing(paths.journal(chain)) as beside:
        beside.write_bytes(content)
    if own:
        journal.set_head(chain, len(own), line, own[-1]["time"])


def _append(chain: str, own: list[dict[str, Any]]) -> None:
    """To a chain that has lines of its own; what it has taken over already is left out."""
    with files.lock(f"journal-{chain}"):
        known = [(line.kind, line.time, line.what) for line in journal.lines(chain) if line.imported]
        for fields in own:
            if (fields["kind"], fields["time"], fields["what"]) not in known:
                journal.write(chain, fields)
