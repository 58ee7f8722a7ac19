"""Tables of the journal: the lines of its chains, what is not as it was written, and the heads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.ground import params
from tasks.ground.errors import Mistake, did_you_mean
from tasks.ground.words import many
from tasks.journal import journal, verification
from tasks.journal.journal import Line
from tasks.journal.verification import Damage


def chosen(chain: str | None, kinds: Sequence[str], since: str | None) -> dict[str, list[Line]]:
    """Chain → its lines of some kinds, since a time.

    Raises:
        Mistake: there is no such chain or kind, or that is no time.
    """
    for kind in kinds:
        if kind not in journal.KINDS:
            raise Mistake(f"no line is of the kind {kind!r}{did_you_mean(kind, list(journal.KINDS))}")
    begin = _time(since)
    return {name: [line for line in journal.lines(name) if _is_chosen(line, kinds, begin)] for name in _chains(chain)}


def _is_chosen(line: Line, kinds: Sequence[str], begin: datetime | None) -> bool:
    return (not kinds or line.kind in kinds) and (begin is None or datetime.fromisoformat(line.time) >= begin)


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise Mistake(f"--since {text!r} is no time: write 2013-11-03 or 2013-11-03T12:00Z") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _chains(chain: str | None) -> list[str]:
    existing = verification.chains()
    if chain is None:
        return existing
    if chain not in {*existing, journal.PLATFORM}:
        raise Mistake(f"the journal has no line of {chain!r}{did_you_mean(chain, existing)}")
    return [chain]


def rows(chains: Mapping[str, list[Line]]) -> Iterator[str]:
    """The lines for a terminal, under the name of their chain."""
    for name, lines in chains.items():
        yield f"{name}: {many(len(lines), 'line')}"
        yield from map(str, lines)
    if not chains:
        yield "the journal has no line yet"


def verify(chain: str | None, files: Sequence[Path], *, registry: bool = False) -> dict[str, list[Damage]]:
    """Chain → what is not as it was written; `files` hold heads that were kept elsewhere, and the `registry` may.

    Raises:
        Mistake: a file holds no heads, or there is no such chain.
    """
    pinned = [head for path in files for head in verification.read_pinned(path)]
    if registry:
        from tasks.release.registry import alias_lines

        pinned += [head for model in params.load().models for head in alias_lines.pinned(model)]
    names = sorted({*verification.chains(), *(head["chain"] for head in pinned)}) if chain is None else _chains(chain)
    return {name: verification.verify(name, [head for head in pinned if head["chain"] == name]) for name in names}


def in_words(verified: Mapping[str, list[Damage]]) -> Iterator[str]:
    """What was found, for a terminal."""
    for name, damages in verified.items():
        if damages:
            yield from map(str, damages)
        else:
            yield f"{name}: {many(len(journal.lines(name)), 'line')}, each as it was written"
    if not verified:
        yield "the journal has no line yet"


def heads(chain: str | None) -> list[dict[str, Any]]:
    """The signed heads, as they are written."""
    return [head for name in _chains(chain) if (head := journal.signed_head(name))]
