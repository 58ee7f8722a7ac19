"""Who was live: which releases answered a model's requests at a moment or over a span, by the journal and the log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from tasks.ground.errors import Mistake
from tasks.ground.words import many
from tasks.prediction_log import prediction_log
from tasks.release.registry import desired_state

MOMENT = timedelta(minutes=1)
"""The requests of a moment are those of the minute that begins with it."""


@dataclass(frozen=True)
class Share:
    """What a release answered."""

    candidate: str
    version: str | None
    requests: int
    share: float


@dataclass(frozen=True)
class AnsweredSpan:
    """Who answered a model's requests from `since` until before `until`, UTC."""

    model: str
    since: str
    until: str
    live: list[dict[str, Any]]
    """The lines of the journal: who was live at the beginning, and each change within."""
    answered: list[Share]
    """By the log, the largest share first; empty where nothing was asked, or the log is not kept for so long."""

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """For a terminal."""
        yield f"{self.model}, {self.since} until {self.until}"
        for line in self.live:
            why = f": {line['why']}" if line["why"] else ""
            yield f"  {line['time']}  version {line['version']} (candidate {line['candidate']}) {line['outcome']}{why}"
        total = many(sum(each.requests for each in self.answered), "request")
        for each in self.answered:
            yield f"  {each.share:7.2%} of {total}: version {each.version} (candidate {each.candidate})"
        if not self.answered:
            yield "  the log has no request of that time"


def over(model: str, since: datetime, until: datetime | None = None) -> AnsweredSpan:
    """Who answered over a span; of the minute that begins with `since`, if there is no `until`.

    Raises:
        Mistake: it is in the future, ends before it begins, or before anything was live.
    """
    if since > datetime.now(UTC):
        raise Mistake(f"{since.isoformat()} is in the future: what will be live is not known")
    until = until or since + MOMENT
    if until <= since:
        raise Mistake(f"the span ends ({until.isoformat()}) before it begins ({since.isoformat()})")
    journal = _journal(model)
    before = _live(journal, since)
    within = [line for line in journal if since < _at(line) < until]
    if not before and not within:
        first = f"the first release went live {journal[0]['time']}" if journal else "no release was live yet"
        raise Mistake(f"{model}: nothing was live at {since.isoformat()}: {first}")
    return AnsweredSpan(
        model,
        since.isoformat(),
        until.isoformat(),
        [*([before] if before else []), *within],
        _shares(model, since, until),
    )


def version_at(model: str, at: datetime) -> int:
    """The version that was live at a moment.

    Raises:
        Mistake: none was.
    """
    live = _live(_journal(model), at)
    if live is None:
        raise Mistake(f"{model}: nothing was live at {at.isoformat()}; `evergreen history {model}` tells when what was")
    return int(live["version"])


def line_at(model: str, at: datetime) -> dict[str, Any] | None:
    """The line of the journal by which a release was live at a moment; None where none was."""
    return _live(_journal(model), at)


def was_live(model: str, candidate: str, before: datetime) -> bool:
    """Whether a release had been live before a moment."""
    lines = [line for line in _journal(model) if _at(line) <= before]
    return any(line["outcome"] == "live" and line["candidate"] == candidate for line in lines)


def parse(text: str) -> datetime:
    """A moment as a person writes it: ISO 8601; without a zone it is UTC.

    Raises:
        Mistake: it is none.
    """
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise Mistake(f"{text!r} is no time: write 2013-11-03T12:00Z") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _live(journal: list[dict[str, Any]], at: datetime) -> dict[str, Any] | None:
    """The line by which a release was live at a moment."""
    live: dict[str, Any] | None = None
    for line in journal:
        if _at(line) > at:
            break
        if line["outcome"] == "live":
            live = line
        elif live and live["candidate"] == line["candidate"]:  # a canary may be withdrawn too
            live = None
    return live


def _journal(model: str) -> list[dict[str, Any]]:
    return sorted(desired_state.history(model), key=_at)


def _at(line: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(line["time"])


def _shares(model: str, since: datetime, until: datetime) -> list[Share]:
    """Of the requests of a span: each counts once, however many rows it has."""
    rows = prediction_log.read(model, since, until, ["release", "version", "request"])
    counts = rows.group_by(["release", "version"]).aggregate([("request", "count_distinct")]).to_pylist()
    total = sum(each["request_count_distinct"] for each in counts)
    shares = [
        Share(each["release"], each["version"], each["request_count_distinct"], each["request_count_distinct"] / total)
        for each in counts
    ]
    return sorted(shares, key=lambda each: (-each.requests, each.candidate))
