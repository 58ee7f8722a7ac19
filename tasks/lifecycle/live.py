"""Who was live: which releases answered a model's requests at a moment or over a span, by the journal and the log."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Any

from tasks.ground.errors import JournalDamaged, Mistake
from tasks.ground.words import many
from tasks.journal import journal
from tasks.journal.journal import Line
from tasks.prediction_log import prediction_log

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
        JournalDamaged: lines are missing that may tell it.
    """
    if since > datetime.now(UTC):
        raise Mistake(f"{since.isoformat()} is in the future: what will be live is not known")
    until = until or since + MOMENT
    if until <= since:
        raise Mistake(f"the span ends ({until.isoformat()}) before it begins ({since.isoformat()})")
    past = history(model)
    past.refuse_gap(since, until)
    before, within = past.live_at(since), past.within(since, until)
    if not before and not within:
        raise Mistake(f"{model}: nothing was live at {since.isoformat()}: {past.first()}")
    lines = [*([before] if before else []), *within]
    return AnsweredSpan(
        model,
        since.isoformat(),
        until.isoformat(),
        [line.flat for line in lines],
        _shares(model, since, until),
    )


def version_at(model: str, at: datetime) -> int:
    """The version that was live at a moment.

    Raises:
        Mistake: none was.
        JournalDamaged: lines are missing that may tell it.
    """
    past = history(model)
    past.refuse_gap(at, at)
    live = past.live_at(at)
    if live is None:
        raise Mistake(f"{model}: nothing was live at {at.isoformat()}; `evergreen history {model}` tells when what was")
    return int(live.what["version"])


# ── by the journal ────────────────────────────────────────────────────────────────────────────────


@dataclass
class LiveHistory:
    """Which release was live when, and which was tried with which share, by the journal; read once."""

    model: str
    lines: tuple[Line, ...]
    """On rollouts and their stages."""

    def __post_init__(self) -> None:
        rollouts = [line for line in self.lines if line.kind == "rollout"]
        self._rollouts, self._times = rollouts, _times(rollouts)
        self._live: list[Line | None] = []
        self._went_live: dict[str, datetime] = {}
        live: Line | None = None
        for line, at in zip(rollouts, self._times, strict=True):
            if line.what["outcome"] == "live":
                live = line
                self._went_live.setdefault(line.what["candidate"], at)
            elif live and live.what["candidate"] == line.what["candidate"]:  # a canary may be withdrawn too
                live = None
            self._live.append(live)
        self._stages = [line for line in self.lines if line.kind == "stage"]
        self._stage_times = _times(self._stages)

    def live_at(self, at: datetime) -> Line | None:
        """The line by which a release was live at a moment; None where none was."""
        place = bisect_right(self._times, at)
        return self._live[place - 1] if place else None

    def was_live(self, candidate: str, before: datetime) -> bool:
        """Whether a release had been live before a moment."""
        return candidate in self._went_live and self._went_live[candidate] <= before

    def share_at(self, candidate: str, at: datetime) -> float | None:
        """The share of the requests that a release had as canary at a moment; None where it had none."""
        place = bisect_right(self._stage_times, at)
        stage = self._stages[place - 1].what if place else {"canary": None, "share": None}
        is_tried = stage["canary"] is not None and stage["canary"]["candidate"] == candidate
        return stage["share"] if is_tried else None

    def within(self, since: datetime, until: datetime) -> list[Line]:
        """What changed in a span, after its beginning."""
        return self._rollouts[bisect_right(self._times, since) : bisect_left(self._times, until)]

    def first(self) -> str:
        """Since when anything was live, in words."""
        return f"the first release went live {self._rollouts[0].time}" if self._rollouts else "no release was live yet"

    def refuse_gap(self, since: datetime, until: datetime) -> None:
        """Refuse to tell who was live where lines are missing that may say so.

        Raises:
            JournalDamaged: since the line by which a release was live then, until the end of the span.
        """
        live = self.live_at(since)
        for gap in journal.gaps(self.model):
            begin = datetime.fromisoformat(gap.since) if gap.since else datetime.min.replace(tzinfo=UTC)
            if begin <= until and (live is None or begin >= _at(live)):
                raise JournalDamaged(
                    f"the journal of {self.model} lacks {gap}, and they may tell who was live at {since.isoformat()}. "
                    f"`evergreen journal verify {self.model}` says where; a backup of var/journal has them"
                )


def _times(lines: Sequence[Line]) -> list[datetime]:
    """When each was written, none before the one before it: the order of the chain counts where a clock went back."""
    return list(accumulate(map(_at, lines), max))


_read: dict[str, LiveHistory] = {}


def history(model: str) -> LiveHistory:
    """What the journal says of a model now; read again when it has grown."""
    lines = journal.lines(model, "rollout", "stage")
    if model not in _read or _read[model].lines is not lines:
        _read[model] = LiveHistory(model, lines)
    return _read[model]


def _at(line: Line) -> datetime:
    return datetime.fromisoformat(line.time)


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
