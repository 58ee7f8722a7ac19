"""Stages of a rollout beside a fake router: a release warmed up, asked, replayed, watched, promoted; and its page."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.ground import files, settings
from tasks.release import comparison
from tasks.release.gate.verdict import Moves, Verdict
from tasks.release.registry import desired_state, verdict_records
from tasks.release.registry.desired_state import DesiredState, ReleaseRef
from tasks.release.rollout import canary, report, router_client, shadow_replay, stages
from tasks.release.rollout.served_answers import OwnAnswers
from tests.tasks.release.fake_router import FEATURES, MODEL, NEW, OLD, Behaviour, FakeRouter, limits, running

pytestmark = pytest.mark.usefixtures("var")


@pytest.mark.parametrize(
    ("now", "one", "route"),
    [
        (DesiredState(), NEW, "first"),
        (DesiredState(OLD), NEW, "new"),
        (DesiredState(OLD, previous=NEW), NEW, "back"),
        (DesiredState(NEW), OLD, "again"),
    ],
)
def test_which_way_a_release_goes(now: DesiredState, one: ReleaseRef, route: str) -> None:
    """One that served before is not compared once more; one that is warm is not started."""
    desired_state.note(MODEL, OLD, "live")
    desired_state.write(MODEL, now)
    assert stages.choose_route(MODEL, one)[0] == route


# ── against a router ──────────────────────────────────────────────────────────────────────────────


@contextmanager
def at(fake: FakeRouter, **said: Any) -> Iterator[stages.ReleaseRollout]:
    """A rollout of NEW over a fake router."""
    with running(fake) as port, router_client.RouterClient(patience=1.0, port=port) as router:
        yield stages.ReleaseRollout(MODEL, NEW, limits(**said), router)


@pytest.fixture(autouse=True)
def registry_says(monkeypatch: pytest.MonkeyPatch) -> list[ReleaseRef | None]:
    """Who is champion: the last one of this list."""
    says: list[ReleaseRef | None] = [NEW]
    monkeypatch.setattr(stages, "champion_in_registry", lambda _: says[-1])
    return says


@pytest.fixture(autouse=True)
def moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried again is tried soon."""
    monkeypatch.setattr(stages, "RETRY_PAUSE_S", 0.1)
    monkeypatch.setattr(canary, "CALL_SECONDS", 0.5)


@pytest.fixture(autouse=True)
def expected(monkeypatch: pytest.MonkeyPatch) -> list[Moves | None]:
    """How far the gate knew that answers would move: the last one of this list."""
    known: list[Moves | None] = [None]
    monkeypatch.setattr(stages, "expected_moves", lambda *_: known[-1])
    return known


@pytest.fixture(autouse=True)
def evaluated(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the model of NEW says of rows, as its evaluation asked it: their temperature."""
    says: list[Any] = [lambda frame: frame["temp"] / 100]

    def score(frame: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"p_0": 1 - says[-1](frame), "p_1": says[-1](frame)})

    monkeypatch.setattr(comparison, "scorer", lambda *_: score)
    return says


@pytest.fixture
def bento(var: Path) -> Path:
    """The release folder of NEW, as the store would hold it."""
    release = var / "bentoml" / "bentos" / MODEL / NEW.candidate / "src"
    facts = {"name": MODEL, "task": "classification", "features": FEATURES, "columns": list(FEATURES)}
    files.write_json(release / "release.json", facts)
    files.write_json(release / "candidate.json", {"candidate": NEW.candidate})
    rows = [{"origin": "EWR", "temp": float(t)} for t in range(10, 90, 4)]
    golden = [
        {"id": str(n), "row": row, "predicted": {"p_0": 1 - row["temp"] / 100, "p_1": row["temp"] / 100}}
        for n, row in enumerate(rows)
    ]
    files.write_json(release / "golden.json", golden)
    return release


def log(
    requests: int, one: ReleaseRef = OLD, answer: Callable[[dict[str, Any]], float] = lambda row: row["temp"] / 100
) -> None:
    """So many requests in the prediction log, answered by a release."""
    day = settings.VAR / "predictions" / MODEL / "incoming" / "2026-11-20"
    day.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(1)
    lines = []
    for number in range(requests):
        row: dict[str, Any] = {
            "origin": str(draw.choice(["EWR", "JFK"])),
            "temp": float(round(draw.uniform(0, 100), 1)),
        }
        p = answer(row)
        lines.append(
            {
                "request": f"r{number}",
                "time": f"2026-11-20T10:{number // 60 % 60:02d}:{number % 60:02d}.000000Z",
                "ms": 2.0,
                "model": MODEL,
                "version": "1",
                "release": one.candidate,
                "key": None,
                "ids": [f"{1_795_000_000_000 + number * 1000:012x}7{number:019x}"],  # when it was answered
                "rows": [row],
                "predictions": [{"prediction": 0, "probability": p, "probabilities": {"0": 1 - p, "1": p}}],
            }
        )
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (day / f"{one.candidate}.1.1.1.jsonl").write_text(text)


def test_it_is_warmed_beside_the_live_release_without_any_traffic(bento: Path) -> None:
    """Then it is ready; called again there is nothing to do."""
    desired_state.write(MODEL, DesiredState(OLD))
    with at(FakeRouter(old=Behaviour(), new=Behaviour(starts=0.2))) as going:
        assert stages.warm_up(going).passed is True
        assert stages.warm_up(going).passed is None
    assert desired_state.read(MODEL) == DesiredState(OLD, canary=NEW)


@pytest.mark.parametrize(
    ("new", "said"),
    [
        (Behaviour(why="Traceback\nModelFileRefused: changed"), "it does not start: ModelFileRefused: changed"),
        (Behaviour(starts=-1), "it is not ready 1 s after it was started"),
        (Behaviour(why="its process ended and said nothing"), "it is not ready 1 s after it was started: its process"),
    ],
)
def test_one_that_does_not_start_is_given_up(bento: Path, new: Behaviour, said: str) -> None:
    """At once where it says why; at the deadline where it hangs, or dies silently, as when somebody kills it."""
    desired_state.write(MODEL, DesiredState(OLD))
    with at(FakeRouter(old=Behaviour(), new=new)) as going:
        result = stages.warm_up(going)
    assert result.passed is False
    assert result.message.startswith(said)


def test_a_router_that_does_not_begin_is_not_held_against_a_release(
    bento: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor one that is not there."""
    desired_state.write(MODEL, DesiredState(OLD))
    fake = FakeRouter(old=Behaviour(), new=Behaviour())
    real = fake.status
    monkeypatch.setattr(fake, "status", lambda: {**real(), "models": {}})
    with at(fake) as going, pytest.raises(stages.RouterLags, match="has not begun with version 2"):
        stages.warm_up(going)
    with pytest.raises(
        router_client.RouterSilent, match=r"does not answer on http://127\.0\.0\.1:.*Start it \(evergreen up\)"
    ):
        going.status()


def test_golden_rows_are_answered_as_evaluated(bento: Path) -> None:
    """Or the release fails, with a row and both values."""
    desired_state.write(MODEL, DesiredState(OLD, canary=NEW))
    with at(FakeRouter(old=Behaviour(), new=Behaviour())) as going:
        assert stages.ask_golden_rows(going).message == "20 golden rows answered exactly as evaluated"
    with at(FakeRouter(old=Behaviour(), new=Behaviour(answer=lambda row: row["temp"] / 100 + 1e-6))) as going:
        result = stages.ask_golden_rows(going)
    assert result.passed is False
    assert "p_1 was evaluated as 0.1, the release answers 0.100001" in result.message
    with at(FakeRouter(old=Behaviour(), new=Behaviour(tried=lambda _: 500))) as going:
        assert stages.ask_golden_rows(going).message == "it does not answer its golden rows: HTTP 500: cannot"


def only_jfk(row: Any) -> Any:
    """A model that halves the probability in JFK; of one row, or of a frame."""
    return row["temp"] / 100 * np.where(row["origin"] == "JFK", 0.5, 1.0)


def test_logged_requests_are_replayed_through_both(bento: Path, evaluated: list[Any]) -> None:
    """How far answers move, and where."""
    log(60)
    desired_state.write(MODEL, DesiredState(OLD, canary=NEW))
    evaluated.append(only_jfk)

    with at(FakeRouter(old=Behaviour(), new=Behaviour(answer=only_jfk))) as going:
        result = stages.replay(going)
    assert result.passed, result.message
    assert result.message == "60 logged requests replayed through both"
    replayed = result.evidence
    assert isinstance(replayed, shadow_replay.Replayed)
    moved = np.abs(np.array(replayed.candidate) - np.array(replayed.live))
    assert replayed.moved == pytest.approx(moved.mean())
    first, last = replayed.slices()[0], replayed.slices()[-1]
    assert (first.feature, first.value) == ("origin", "JFK")
    assert first.shift == pytest.approx(-first.moved)
    assert (last.feature, last.value, last.moved) == ("origin", "EWR", 0.0)
    assert sum(one.rows for one in replayed.slices() if one.feature == "origin") == 60


def test_without_logged_requests_it_says_so_and_takes_the_golden_rows(bento: Path) -> None:
    """Which the champion can answer as well."""
    desired_state.write(MODEL, DesiredState(OLD, canary=NEW))
    with at(FakeRouter(old=Behaviour(), new=Behaviour())) as going:
        result = stages.replay(going)
    assert result.message == "20 golden rows, as no request was logged yet, replayed through both"


@pytest.mark.parametrize(
    ("new", "said"),
    [
        (
            Behaviour(tried=lambda n: 500 if n == 7 else 200),
            "errors: 1 of 7 requests were not answered; the first: HTTP 500",
        ),
        (Behaviour(tried=lambda _: 400), "the first: HTTP 400: refused (temp is missing)"),
        (
            Behaviour(answer=lambda row: 0.5 if row["temp"] > 90 else row["temp"] / 100),
            "rows are not what its model says of them; row ",
        ),
        (Behaviour(answer=lambda row: 1 - row["temp"] / 100), "moves: answers move by 0."),
        (Behaviour(ms=120), "8 of 8 answers above 50 ms"),
        (Behaviour(tried=lambda n: 504 if n % 3 == 0 else 200), "runs: no answer in time: HTTP 504"),
    ],
)
def test_a_release_that_does_worse_with_logged_requests_fails(bento: Path, new: Behaviour, said: str) -> None:
    """An error, a refusal of what clients still send, answers far off, slowness: soon, and with the reason."""
    log(60)
    desired_state.write(MODEL, DesiredState(OLD, canary=NEW))
    with at(FakeRouter(old=Behaviour(), new=new)) as going:
        result = stages.replay(going)
    assert result.passed is False
    assert said in result.message


def test_what_the_champion_fails_as_well_is_not_held_against_a_release(bento: Path) -> None:
    """It is counted apart."""
    log(10)
    desired_state.write(MODEL, DesiredState(OLD, canary=NEW))
    sick = Behaviour(tried=lambda n: 500 if n == 2 else 200)
    with at(FakeRouter(old=sick, new=Behaviour(tried=lambda n: 500 if n == 2 else 200))) as going:
        result = stages.replay(going)
    assert result.passed
    assert (
        "0 of 9 requests were not answered; 1 more that the live release does not answer either"
        in result.checks[1].reason
    )


def test_a_canary_gets_its_share_and_stands(bento: Path) -> None:
    """With what was seen of both; the share is taken back by nobody but who comes next."""
    log(80, NEW)
    desired_state.write(MODEL, DesiredState(OLD, canary=NEW))
    with at(FakeRouter(400, old=Behaviour(), new=Behaviour()), canary=0.5, bake_s=1.5) as going:
        result = stages.bake(going)
    assert result.passed, result.message
    assert isinstance(result.evidence, canary.Watch)
    assert result.evidence.canary.requests > 100
    assert desired_state.read(MODEL).share == 0.5
    checks = {check.name: check for check in result.checks}
    assert checks["answers"].reason == "80 rows are answered exactly as its model says"
    assert checks["moves"].reason == "answers move by 0.0000 of probability on average, over 50 rows"
    assert "answers above 50 ms" in checks["latency p99"].reason


@pytest.mark.parametrize(
    ("new", "said"),
    [
        (Behaviour(fails=lambda n: n == 200), "errors: 1 of "),
        (Behaviour(ms=300), "latency p99: p99 3"),
        (Behaviour(dies=1000), "runs: 1 of its processes died (tried 3 times)"),
    ],
)
def test_a_canary_that_fails_is_seen_before_the_bake_is_over(bento: Path, new: Behaviour, said: str) -> None:
    """Errors, slowness; and no answers at all, which is not the same as no requests."""
    desired_state.write(MODEL, DesiredState(OLD, canary=NEW))
    begin = time.monotonic()
    with at(FakeRouter(400, old=Behaviour(), new=new), canary=0.5, bake_s=20) as going:
        result = stages.bake(going)
    assert result.passed is False
    assert result.message.startswith(said)
    assert time.monotonic() - begin < 8


def test_a_canary_that_answers_nothing_is_not_one_that_was_asked_nothing(bento: Path) -> None:
    """What it owes is waited for, as long as one request may take."""
    desired_state.write(MODEL, DesiredState(OLD, canary=NEW))
    with at(FakeRouter(100, old=Behaviour(), new=Behaviour(hangs=True)), canary=0.5, bake_s=0.5) as going:
        result = stages.bake(going)
    assert result.passed is False
    assert result.message.startswith("runs: it owes 3 answers at the end of its watch")


def test_too_little_traffic_is_said_and_the_rollout_goes_on(bento: Path) -> None:
    """Nobody can say more of it."""
    desired_state.write(MODEL, DesiredState(OLD, canary=NEW))
    with at(FakeRouter(10, old=Behaviour(), new=Behaviour(answer=lambda _: 0.99))) as going:
        result = stages.bake(going)
    assert result.passed
    assert result.message.endswith("too little traffic to judge its latency and its moves")


def test_a_canary_that_nobody_watches_any_more_gets_nothing(
    bento: Path, registry_says: list[ReleaseRef | None]
) -> None:
    """Somebody made another one champion; likewise with every error."""
    desired_state.write(MODEL, DesiredState(OLD, canary=NEW))
    registry_says.append(OLD)
    with (
        at(FakeRouter(old=Behaviour(), new=Behaviour())) as going,
        pytest.raises(stages.Superseded, match="version 1"),
    ):
        stages.bake(going)
    assert desired_state.read(MODEL) == DesiredState(OLD, canary=NEW)


def test_everything_is_given_only_to_who_is_still_champion(bento: Path, registry_says: list[ReleaseRef | None]) -> None:
    """And is noted once."""
    desired_state.write(MODEL, DesiredState(OLD, canary=NEW))
    with at(FakeRouter(old=Behaviour(), new=Behaviour())) as going:
        registry_says.append(None)
        with pytest.raises(stages.Superseded, match="no version is champion now"):
            stages.promote(going)
        registry_says.append(NEW)
        assert stages.promote(going).message == f"answers all requests; {OLD} is kept warm"
        assert stages.promote(going).passed
    assert [line["version"] for line in desired_state.history(MODEL)] == [2]


def test_a_token_that_changed_is_read_again(bento: Path) -> None:
    """A router that was started anew has another one."""
    desired_state.write(MODEL, DesiredState(OLD))
    fake = FakeRouter(old=Behaviour(), new=Behaviour())
    with at(fake) as going:
        assert going.router.predict(MODEL, OLD.candidate, [{"temp": 1.0}]).status == 200
        fake.token = "another"
        threading.Timer(0.2, files.write_text, (settings.VAR / "run" / "router.token", "another")).start()
        assert going.router.predict(MODEL, OLD.candidate, [{"temp": 1.0}]).status == 200


# ── answers ───────────────────────────────────────────────────────────────────────────────────────


def test_a_canary_is_held_against_its_own_model(bento: Path) -> None:
    """Whatever it is asked: what it answered is what its model says of the same rows, or it is withdrawn."""
    log(80, NEW, answer=lambda row: round(row["temp"] / 100))
    desired_state.write(MODEL, DesiredState(OLD, canary=NEW))
    with at(FakeRouter(10, old=Behaviour(), new=Behaviour()), canary=0.5, bake_s=0.5) as going:
        result = stages.bake(going)
    assert result.passed is False
    assert not result.transient
    assert (
        "answers: 160 values of 80 rows are not what its model says of them; row 1: p_0 was evaluated as"
        in result.message
    )


def test_a_model_that_cannot_be_scored_here_is_no_measure(bento: Path, evaluated: list[Any]) -> None:
    """As where the release needs other packages: the golden rows tell."""
    log(80, NEW)
    evaluated.append(lambda frame: frame["temp"] / 101)
    own = OwnAnswers(MODEL, bento)
    own.compare([{"origin": "EWR", "temp": 50.0}], [{"probabilities": {"0": 0.5, "1": 0.5}}])
    assert own.check().passed
    assert "golden rows are scored up to 0.0085" in own.check().reason
    assert own.rows == 0


def test_moves_are_expected_from_release_to_release(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where those in between were promoted and never went live; a verdict that refused is no word for it."""
    monkeypatch.undo()

    def verdict(challenger: str, over: str | None, most: float, promoted: bool = True) -> Verdict:
        moves = Moves(100, most / 10, most)
        return Verdict("v", MODEL, challenger, over, promoted, "", (), {}, "r", {}, 10, 1, moves)

    recorded = {
        "c": [verdict("c", "b", 0.2), verdict("c", "x", 0.9, promoted=False)],
        "b": [verdict("b", "a", 0.1), verdict("b", "c", 0.5)],
        "a": [verdict("a", None, 0.0)],
    }
    monkeypatch.setattr(verdict_records, "of_candidate", lambda _, candidate: recorded.get(candidate, []))
    assert stages.expected_moves(MODEL, "c", "b") == Moves(100, pytest.approx(0.02), 0.2)
    assert stages.expected_moves(MODEL, "c", "a") == Moves(100, pytest.approx(0.03), pytest.approx(0.3))
    for live in ("x", "nobody"):
        assert stages.expected_moves(MODEL, "c", live) is None


# ── a moment's fault ──────────────────────────────────────────────────────────────────────────────


def test_what_stood_still_is_tried_again(bento: Path) -> None:
    """A process that is stopped for a while: in the replay, and in production; it is told of."""
    log(60)
    desired_state.write(MODEL, DesiredState(OLD, canary=NEW))
    with at(FakeRouter(old=Behaviour(), new=Behaviour(tried=lambda n: 504 if n == 7 else 200))) as going:
        result = stages.replay(going)
    assert result.passed
    assert result.message == (
        "60 logged requests replayed through both; tried again, as runs: no answer in time: HTTP 504: cannot"
    )
    dying = Behaviour(dies=4)
    with at(FakeRouter(100, old=Behaviour(), new=dying), canary=0.5, bake_s=1) as going:
        result = stages.bake(going)
    assert result.passed
    assert "tried again, as runs: 1 of its processes died" in result.message


def test_one_that_is_not_ready_in_time_is_started_again(bento: Path) -> None:
    """A machine may be busy; the second time it is not."""
    desired_state.write(MODEL, DesiredState(OLD))
    slow = Behaviour(starts=1.4)
    with at(FakeRouter(old=Behaviour(), new=slow)) as going:
        result = stages.warm_up(going)
    assert result.passed
    assert "tried again, as it is not ready 1 s after it was started" in result.message


# ── told ──────────────────────────────────────────────────────────────────────────────────────────


def test_the_page_tells_each_stage_and_where_predictions_move(bento: Path, evaluated: list[Any]) -> None:
    """A table per stage that measured, a picture, and why it failed."""
    log(60)
    desired_state.write(MODEL, DesiredState(OLD, canary=NEW))
    record = report.RolloutRecord(MODEL, NEW, OLD, end="version 2 is withdrawn: it is slow")
    evaluated.append(lambda row: row["temp"] / 120 + (row["origin"] == "JFK") / 9)
    new = Behaviour(ms=4, answer=evaluated[-1], fails=lambda n: n == 30)
    with at(FakeRouter(200, old=Behaviour(ms=1), new=new), bake_s=5) as going:
        for name, stage in (("golden rows", stages.ask_golden_rows), ("replay", stages.replay), ("bake", stages.bake)):
            record.stages.append(report.StageRecord(name, stage(going), 1.25))
    page = report.markdown(record, "picture.png")
    assert "# ✗ late: version 2 (`1111111111111111`) withdrawn" in page
    assert "| ✗ | golden rows | late:1111111111111111 does not answer as it was evaluated; 40 of 40" in page
    assert "| ✓ | replay | 60 logged requests replayed through both | 1.2 |" in page
    assert "| ✗ | bake | errors: 1 of " in page
    assert "![the live release and the candidate](picture.png)" in page
    assert "## where predictions move most" in page
    drawn = report.picture(record)
    assert drawn.startswith(b"\x89PNG")
    if "PICTURE" in os.environ:  # to look at it
        Path(os.environ["PICTURE"]).write_bytes(drawn)
