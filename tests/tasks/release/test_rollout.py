"""A rollout's parts on their own: what should serve, the router asked, requests replayed, a canary watched, a page."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks import files, params, settings
from tasks.release import asking, canary, champion, replay, rollout, rollout_report, serving
from tasks.release.asking import Reply
from tasks.release.serving import One, Serving
from tests.tasks.release.fake_router import EDGES, EDGES_MS, MODEL, NEW, OLD, Behaviour, FakeRouter, running

FEATURES = {"origin": {"type": "category"}, "temp": {"type": "number"}}


@pytest.fixture(autouse=True)
def var(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place of its own for what is written."""
    monkeypatch.setattr(settings, "VAR", tmp_path)
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    return tmp_path


def limits(**said: Any) -> params.Rollout:
    """The rules, with others than the defaults."""
    return params.Rollout(**{"start_s": 1.0, "bake_s": 1.0, "replay": 60, **said})


# ── what should serve ─────────────────────────────────────────────────────────────────────────────


def test_what_should_serve_is_written_as_the_router_reads_it() -> None:
    """From the first champion to the next: who served is kept warm, and the one before is let go."""
    assert serving.read(MODEL) == Serving()
    older = One("9" * 16, 0)
    serving.write(MODEL, Serving(OLD, former=older).with_challenger(NEW).with_canary(0.1))
    assert files.read_json(settings.VAR / "serving" / "late.json") == {
        "live": {"candidate": OLD.candidate, "version": 1, "since": ""},
        "beside": [
            {"candidate": older.candidate, "version": 0, "role": "former"},
            {"candidate": NEW.candidate, "version": 2, "role": "challenger"},
        ],
        "canary": {"candidate": NEW.candidate, "share": 0.1},
    }
    now = serving.read(MODEL)
    assert (now.live, now.former, now.challenger, now.share) == (OLD, older, NEW, 0.1)
    assert now.without_challenger() == Serving(OLD, older)
    then = now.gone_live(NEW)
    assert then.live is not None
    assert (then.live.candidate, then.former, then.challenger, then.share) == (NEW.candidate, OLD, None, None)
    assert then.live.since.endswith("Z")


@pytest.mark.parametrize("torn", [b"", b'{"live": ', b"\x00\x00\x00", b"\xff\xfe\x9c", b'{"live": null}'])
def test_a_torn_file_is_made_again_of_what_went_live_last(
    var: Path, caplog: pytest.LogCaptureFixture, torn: bytes
) -> None:
    """It is named and set aside; who served goes on, and who served before stays the former one."""
    for one, outcome in ((OLD, "live"), (NEW, "live"), (OLD, "withdrawn")):
        serving.note(MODEL, one, outcome)
    serving.path(MODEL).parent.mkdir(exist_ok=True)
    serving.path(MODEL).write_bytes(torn)
    now = serving.read(MODEL)
    assert now.live is not None
    assert now.former is not None
    assert (now.live.candidate, now.former.candidate, now.share) == (NEW.candidate, OLD.candidate, None)
    assert files.read_json(serving.path(MODEL))["live"]["candidate"] == NEW.candidate
    assert "late.json is torn" in caplog.text
    (aside,) = (var / "torn").iterdir()
    assert aside.read_bytes() == torn


def test_a_torn_file_of_a_model_that_never_served_counts_as_none(var: Path) -> None:
    """And so does that of one that was withdrawn with nobody after it: the champion is tried as the first one is."""
    for lines in ((), ("live", "withdrawn")):
        for outcome in lines:
            serving.note(MODEL, OLD, outcome)
        files.write_text(serving.path(MODEL), "")
        assert serving.read(MODEL).live is None


def test_models_that_are_gone_are_forgotten_and_keys_are_not(var: Path) -> None:
    """API keys lie in the same folder."""
    for name in ("late", "gone"):
        serving.write(name, Serving(OLD))
    files.write_json(var / "serving" / "keys.json", {})
    assert serving.forget(["late"]) == ["gone"]
    assert sorted(path.name for path in (var / "serving").iterdir()) == ["keys.json", "late.json"]


def test_the_book_has_a_line_for_each_change() -> None:
    """The same one twice is one line; who has served is known ever after."""
    for one, outcome in ((OLD, "live"), (OLD, "live"), (NEW, "withdrawn")):
        serving.note(MODEL, one, outcome, "slow" if outcome == "withdrawn" else "")
    assert [(line["version"], line["outcome"], line["why"]) for line in serving.history(MODEL)] == [
        (1, "live", ""),
        (2, "withdrawn", "slow"),
    ]
    assert serving.has_served(MODEL, OLD.candidate)
    assert not serving.has_served(MODEL, NEW.candidate)


@pytest.mark.parametrize(
    ("now", "one", "way"),
    [
        (Serving(), NEW, "first"),
        (Serving(OLD), NEW, "new"),
        (Serving(OLD, former=NEW), NEW, "back"),
        (Serving(NEW), OLD, "again"),
    ],
)
def test_which_way_a_release_goes(now: Serving, one: One, way: str) -> None:
    """One that served before is not compared once more; one that is warm is not started."""
    serving.note(MODEL, OLD, "live")
    serving.write(MODEL, now)
    assert rollout.way(MODEL, one)[0] == way


# ── against a router ──────────────────────────────────────────────────────────────────────────────


@contextmanager
def at(fake: FakeRouter, **said: Any) -> Iterator[rollout.Rollout]:
    """A rollout of NEW over a fake router."""
    with running(fake) as port, asking.Router(patience=1.0, port=port) as router:
        yield rollout.Rollout(MODEL, NEW, limits(**said), router)


@pytest.fixture(autouse=True)
def registry_says(monkeypatch: pytest.MonkeyPatch) -> list[One | None]:
    """Who is champion: the last one of this list."""
    says: list[One | None] = [NEW]
    monkeypatch.setattr(rollout, "wanted", lambda _: says[-1])
    return says


@pytest.fixture
def bento(var: Path) -> Path:
    """The release folder of NEW, as the store would hold it."""
    release = var / "bentoml" / "bentos" / MODEL / NEW.candidate / "src"
    files.write_json(release / "release.json", {"name": MODEL, "task": "classification", "features": FEATURES})
    files.write_json(release / "candidate.json", {"candidate": NEW.candidate})
    rows = [{"origin": "EWR", "temp": float(t)} for t in range(10, 90, 4)]
    golden = [
        {"id": str(n), "row": row, "predicted": {"p_0": 1 - row["temp"] / 100, "p_1": row["temp"] / 100}}
        for n, row in enumerate(rows)
    ]
    files.write_json(release / "golden.json", golden)
    return release


def log(requests: int) -> None:
    """So many requests in the prediction log."""
    day = settings.VAR / "predictions" / MODEL / "incoming" / "2026-11-20"
    day.mkdir(parents=True)
    draw = np.random.default_rng(1)
    lines = []
    for number in range(requests):
        row = {"origin": str(draw.choice(["EWR", "JFK"])), "temp": float(round(draw.uniform(0, 100), 1))}
        lines.append(
            {
                "request": f"r{number}",
                "time": f"2026-11-20T10:{number // 60 % 60:02d}:{number % 60:02d}.000000Z",
                "ms": 2.0,
                "model": MODEL,
                "version": "1",
                "release": OLD.candidate,
                "key": None,
                "ids": [f"{1_795_000_000_000 + number * 1000:012x}7{number:019x}"],  # when it was answered
                "rows": [row],
                "predictions": [{"prediction": 0, "probability": 0.1}],
            }
        )
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (day / f"{OLD.candidate}.1.1.1.jsonl").write_text(text)


def test_it_is_warmed_beside_who_serves_without_any_traffic(bento: Path) -> None:
    """Then it is ready; called again there is nothing to do."""
    serving.write(MODEL, Serving(OLD))
    with at(FakeRouter(old=Behaviour(), new=Behaviour(starts=0.2))) as going:
        assert rollout.warm(going).passed is True
        assert rollout.warm(going).passed is None
    assert serving.read(MODEL) == Serving(OLD, challenger=NEW)


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
    serving.write(MODEL, Serving(OLD))
    with at(FakeRouter(old=Behaviour(), new=new)) as going:
        outcome = rollout.warm(going)
    assert outcome.passed is False
    assert outcome.said.startswith(said)


def test_a_router_that_does_not_begin_is_not_held_against_a_release(
    bento: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor one that is not there."""
    fake = FakeRouter(old=Behaviour(), new=Behaviour())
    real = fake.status
    monkeypatch.setattr(fake, "status", lambda: {**real(), "models": {}})
    with at(fake) as going, pytest.raises(rollout.RouterLags, match="has not begun with version 2"):
        rollout.warm(going)
    with pytest.raises(asking.RouterSilent, match=r"does not answer on http://127\.0\.0\.1:.*Start it \(make up\)"):
        going.status()


def test_golden_rows_are_answered_as_evaluated(bento: Path) -> None:
    """Or the release fails, with a row and both values."""
    serving.write(MODEL, Serving(OLD, challenger=NEW))
    with at(FakeRouter(old=Behaviour(), new=Behaviour())) as going:
        assert rollout.golden(going).said == "20 golden rows answered exactly as evaluated"
    with at(FakeRouter(old=Behaviour(), new=Behaviour(answer=lambda row: row["temp"] / 100 + 1e-6))) as going:
        outcome = rollout.golden(going)
    assert outcome.passed is False
    assert "p_1 was evaluated as 0.1, the release answers 0.100001" in outcome.said
    with at(FakeRouter(old=Behaviour(), new=Behaviour(tried=lambda _: 500))) as going:
        assert rollout.golden(going).said == "it does not answer its golden rows: HTTP 500: cannot"


def test_logged_requests_are_replayed_through_both(bento: Path) -> None:
    """How far answers move, and where."""
    log(60)
    serving.write(MODEL, Serving(OLD, challenger=NEW))

    def only_jfk(row: dict[str, Any]) -> float:
        return row["temp"] / 100 * (0.5 if row["origin"] == "JFK" else 1.0)

    with at(FakeRouter(old=Behaviour(), new=Behaviour(answer=only_jfk))) as going:
        outcome = rollout.replay(going)
    assert outcome.passed, outcome.said
    assert outcome.said == "60 logged requests replayed through both"
    replayed = outcome.facts
    assert isinstance(replayed, replay.Replayed)
    moved = np.abs(np.array(replayed.challenger) - np.array(replayed.champion))
    assert replayed.moved == pytest.approx(moved.mean())
    first, last = replayed.slices()[0], replayed.slices()[-1]
    assert (first.feature, first.value) == ("origin", "JFK")
    assert first.shift == pytest.approx(-first.moved)
    assert (last.feature, last.value, last.moved) == ("origin", "EWR", 0.0)
    assert sum(one.rows for one in replayed.slices() if one.feature == "origin") == 60


def test_without_logged_requests_it_says_so_and_takes_the_golden_rows(bento: Path) -> None:
    """Which the champion can answer as well."""
    serving.write(MODEL, Serving(OLD, challenger=NEW))
    with at(FakeRouter(old=Behaviour(), new=Behaviour())) as going:
        outcome = rollout.replay(going)
    assert outcome.said == "20 golden rows, as no request was logged yet, replayed through both"


@pytest.mark.parametrize(
    ("new", "said"),
    [
        (
            Behaviour(tried=lambda n: 500 if n == 7 else 200),
            "errors: 1 of 7 requests were not answered; the first: HTTP 500",
        ),
        (Behaviour(tried=lambda _: 400), "the first: HTTP 400: refused (temp is missing)"),
        (Behaviour(answer=lambda row: 1 - row["temp"] / 100), "moved: answers move by 0."),
        (Behaviour(ms=120), "latency median: median 1"),
    ],
)
def test_a_release_that_does_worse_with_logged_requests_fails(bento: Path, new: Behaviour, said: str) -> None:
    """An error, a refusal of what clients still send, answers far off, slowness: soon, and with the reason."""
    log(60)
    serving.write(MODEL, Serving(OLD, challenger=NEW))
    begin = time.monotonic()
    with at(FakeRouter(old=Behaviour(), new=new)) as going:
        outcome = rollout.replay(going)
    assert outcome.passed is False
    assert said in outcome.said
    assert time.monotonic() - begin < 5  # 60 slow requests would take longer


def test_what_the_champion_fails_as_well_is_not_held_against_a_release(bento: Path) -> None:
    """It is counted apart."""
    log(10)
    serving.write(MODEL, Serving(OLD, challenger=NEW))
    sick = Behaviour(tried=lambda n: 500 if n == 2 else 200)
    with at(FakeRouter(old=sick, new=Behaviour(tried=lambda n: 500 if n == 2 else 200))) as going:
        outcome = rollout.replay(going)
    assert outcome.passed
    assert (
        "0 of 9 requests were not answered; 1 more that who serves does not answer either" in outcome.checks[0].reason
    )


def test_a_canary_gets_its_share_and_stands(bento: Path) -> None:
    """With what was seen of both; the share is taken back by nobody but who comes next."""
    serving.write(MODEL, Serving(OLD, challenger=NEW))
    with at(FakeRouter(400, old=Behaviour(), new=Behaviour()), canary=0.5, bake_s=1.5) as going:
        outcome = rollout.bake(going)
    assert outcome.passed, outcome.said
    assert isinstance(outcome.facts, canary.Watch)
    assert outcome.facts.canary.requests > 100
    assert serving.read(MODEL).share == 0.5
    checks = {check.name: check for check in outcome.checks}
    assert checks["drift"].value is not None
    assert "answers above 50 ms" in checks["latency p99"].reason


@pytest.mark.parametrize(
    ("new", "said"),
    [
        (Behaviour(fails=lambda n: n == 200), "errors: 1 of "),
        (Behaviour(ms=300), "latency p99: p99 3"),
        (Behaviour(dies=True), "runs: 3 of its processes died"),
        (Behaviour(answer=lambda row: row["temp"] / 400), "drift: PSI "),
    ],
)
def test_a_canary_that_fails_is_seen_before_the_bake_is_over(bento: Path, new: Behaviour, said: str) -> None:
    """Errors, slowness, other predictions; and no answers at all, which is not the same as no requests."""
    serving.write(MODEL, Serving(OLD, challenger=NEW))
    begin = time.monotonic()
    with at(FakeRouter(400, old=Behaviour(), new=new), canary=0.5, bake_s=20) as going:
        outcome = rollout.bake(going)
    assert outcome.passed is False
    assert outcome.said.startswith(said)
    assert time.monotonic() - begin < 8


def test_a_canary_that_answers_nothing_is_not_one_that_was_asked_nothing(bento: Path) -> None:
    """What it owes is waited for, as long as one request may take."""
    serving.write(MODEL, Serving(OLD, challenger=NEW))
    with at(FakeRouter(100, old=Behaviour(), new=Behaviour(hangs=True)), canary=0.5, bake_s=0.5) as going:
        outcome = rollout.bake(going)
    assert outcome.passed is False
    assert outcome.said.startswith("runs: it has answered none of 3 requests in ")


def test_too_little_traffic_is_said_and_the_rollout_goes_on(bento: Path) -> None:
    """Nobody can say more of it."""
    serving.write(MODEL, Serving(OLD, challenger=NEW))
    with at(FakeRouter(10, old=Behaviour(), new=Behaviour(answer=lambda _: 0.99))) as going:
        outcome = rollout.bake(going)
    assert outcome.passed
    assert outcome.said.endswith("too little traffic to judge its latency and its predictions")


def test_a_canary_that_nobody_watches_any_more_gets_nothing(bento: Path, registry_says: list[One | None]) -> None:
    """Somebody made another one champion; likewise with every error."""
    serving.write(MODEL, Serving(OLD, challenger=NEW))
    registry_says.append(OLD)
    with (
        at(FakeRouter(old=Behaviour(), new=Behaviour())) as going,
        pytest.raises(rollout.Superseded, match="version 1"),
    ):
        rollout.bake(going)
    assert serving.read(MODEL) == Serving(OLD, challenger=NEW)


def test_everything_is_given_only_to_who_is_still_champion(bento: Path, registry_says: list[One | None]) -> None:
    """And is noted once."""
    serving.write(MODEL, Serving(OLD, challenger=NEW))
    with at(FakeRouter(old=Behaviour(), new=Behaviour())) as going:
        registry_says.append(None)
        with pytest.raises(rollout.Superseded, match="nobody is champion now"):
            rollout.go_live(going)
        registry_says.append(NEW)
        assert rollout.go_live(going).said == f"answers everything; {OLD} is kept warm"
        assert rollout.go_live(going).passed
    assert [line["version"] for line in serving.history(MODEL)] == [2]


def test_a_token_that_changed_is_read_again(bento: Path) -> None:
    """A router that was started anew has another one."""
    serving.write(MODEL, Serving(OLD))
    fake = FakeRouter(old=Behaviour(), new=Behaviour())
    with at(fake) as going:
        assert going.router.predict(MODEL, OLD.candidate, [{"temp": 1.0}]).status == 200
        fake.token = "another"
        threading.Timer(0.2, files.write_text, (settings.VAR / "run" / "router.token", "another")).start()
        assert going.router.predict(MODEL, OLD.candidate, [{"temp": 1.0}]).status == 200


# ── statistics ────────────────────────────────────────────────────────────────────────────────────


def said(answered: int = 0, errors: int = 0, refused: int = 0, **histograms: Any) -> dict[str, Any]:
    """What /status says of a release."""
    latency, predictions = histograms.get("latency", [0] * 81), histograms.get("predictions", [0] * 20)
    edges = histograms.get("edges", EDGES)
    return {
        "answered": answered,
        "errors": errors,
        "refused": refused,
        "state": "ready",
        "why": None,
        "pids": [7],
        "latency": {"edges_ms": EDGES_MS, "counts": latency},
        "predictions": {"edges": edges, "counts": predictions},
    }


def test_counters_are_taken_from_the_first_look_on_and_survive_another_router() -> None:
    """What was before the canary is not its doing; a router that was killed counts from 0 again."""
    counted = canary.Counted()
    for looked, router in ((said(100, 5), 1), (said(110, 5), 1), (said(4, 1), 2), (said(6, 1), 2)):
        counted.look(looked, router)
    assert (counted.answered, counted.errors) == (10 + 4 + 2, 0 + 1)


def watched(canary_counts: Any, live_counts: Any, **edges: Any) -> canary.Watch:
    """A watch that saw these predictions."""
    watch = canary.Watch()
    for side, counts in ((watch.canary, canary_counts), (watch.live, live_counts)):
        side.look(
            said(edges=edges.get("live" if side is watch.live else "canary", EDGES), predictions=[0] * len(counts)), 1
        )
        own = edges.get("live" if side is watch.live else "canary", EDGES)
        side.look(said(int(sum(counts)), edges=own, predictions=list(counts)), 1)
    return watch


def drift(watch: canary.Watch, **more: Any) -> Any:
    """The check of that name."""
    return next(check for check in watch.judge(limits(bake_s=20, **more)) if check.name == "drift")


def test_drift_does_not_alarm_by_chance() -> None:
    """50 predictions of the same distribution beside 450, hardly ever: though PSI is high by chance."""
    draw = np.random.default_rng(7)
    shares = np.full(20, 1 / 20)
    alarms, high = 0, 0
    for _ in range(200):
        check = drift(watched(draw.multinomial(50, shares), draw.multinomial(450, shares)))
        alarms += not check.passed
        high += check.value > 0.25
    assert alarms <= 1
    assert high > 10  # the limit alone would have withdrawn that many good releases


def test_drift_alarms_when_predictions_move() -> None:
    """With enough of them, and beyond the limit."""
    draw = np.random.default_rng(7)
    shares = np.full(20, 1 / 20)
    moved = np.concatenate([np.full(10, 1.7), np.full(10, 0.3)]) / 20
    assert not drift(watched(draw.multinomial(300, moved), draw.multinomial(2700, shares))).passed
    assert drift(watched(draw.multinomial(300, moved), draw.multinomial(2700, shares)), drift=2.0).passed
    assert drift(watched(draw.multinomial(20, moved), draw.multinomial(2700, shares))).value is None


def test_values_are_compared_over_edges_that_differ() -> None:
    """A regression's edges come from its evaluation, and so differ from release to release."""
    draw = np.random.default_rng(3)
    edges = {"canary": [float(x) for x in np.arange(2, 40, 2)], "live": [float(x) for x in np.arange(1, 39, 2)]}

    def counts(values: Any, own: list[float]) -> Any:
        return np.bincount(np.searchsorted(own, values), minlength=len(own) + 1)

    one, other = draw.gamma(4, 4, 2000), draw.gamma(4, 4, 8000)
    same = drift(watched(counts(one, edges["canary"]), counts(other, edges["live"]), **edges))
    assert same.passed
    assert same.value < 0.02
    far = drift(watched(counts(one * 2, edges["canary"]), counts(other, edges["live"]), **edges))
    assert not far.passed


def test_refusals_are_compared_with_those_of_who_serves() -> None:
    """Clients' own mistakes meet both; a canary that refuses what the other takes does not stand."""
    watch = canary.Watch()
    for side, looked in ((watch.canary, said(40, refused=4)), (watch.live, said(400, refused=40))):
        side.look(said(), 1)
        side.look(looked, 1)
    assert all(check.passed for check in watch.judge(limits()))
    watch.canary.look(said(60, refused=44), 1)
    assert [check.name for check in watch.judge(limits()) if not check.passed] == ["refused"]


def test_several_classes_move_by_half_the_sum_of_differences() -> None:
    """Which for two classes is the difference of either."""
    replayed = replay.Replayed("log", 1, "classification", {})
    old = {"prediction": "a", "probabilities": {"a": 0.6, "b": 0.3, "c": 0.1}}
    new = {"prediction": "b", "probabilities": {"a": 0.2, "b": 0.7, "c": 0.1}}
    replayed.add([{}], Reply(200, {"predictions": [old]}, 1.0), Reply(200, {"predictions": [new]}, 1.0))
    assert replayed.moved == pytest.approx(0.4)
    assert (replayed.champion, replayed.challenger) == ([0.6], [0.2])


def test_values_move_relative_to_the_champions_mean() -> None:
    """So that the limit does not depend on the unit."""
    replayed = replay.Replayed("log", 2, "regression", {})
    for was, becomes in ((10.0, 12.0), (30.0, 28.0)):
        bodies = [{"predictions": [{"prediction": value}]} for value in (was, becomes)]
        replayed.add([{}], Reply(200, bodies[0], 1.0), Reply(200, bodies[1], 1.0))
    assert replayed.moved == pytest.approx(2 / 20)


# ── told ──────────────────────────────────────────────────────────────────────────────────────────


def test_the_page_tells_each_stage_and_where_predictions_move(bento: Path) -> None:
    """A table per stage that measured, a picture, and why it failed."""
    log(60)
    serving.write(MODEL, Serving(OLD, challenger=NEW))
    story = rollout_report.Story(MODEL, NEW, OLD, end="version 2 is withdrawn: it is slow")
    new = Behaviour(
        ms=4, answer=lambda row: row["temp"] / 120 + (row.get("origin") == "JFK") / 9, fails=lambda n: n == 30
    )
    with at(FakeRouter(200, old=Behaviour(ms=1), new=new), bake_s=5) as going:
        for name, stage in (("golden rows", rollout.golden), ("replay", rollout.replay), ("bake", rollout.bake)):
            story.stages.append(rollout_report.Told(name, stage(going), 1.25))
    page = rollout_report.markdown(story, "picture.png")
    assert "# ✗ late: version 2 (`1111111111111111`) withdrawn" in page
    assert "| ✗ | golden rows | late:1111111111111111 does not answer as it was evaluated; 40 of 40" in page
    assert "| ✓ | replay | 60 logged requests replayed through both | 1.2 |" in page
    assert "| ✗ | bake | errors: 1 of " in page
    assert "![champion and challenger](picture.png)" in page
    assert "## where predictions move most" in page
    drawn = rollout_report.picture(story)
    assert drawn.startswith(b"\x89PNG")
    if "PICTURE" in os.environ:  # to look at it
        Path(os.environ["PICTURE"]).write_bytes(drawn)


# ── who is champion ───────────────────────────────────────────────────────────────────────────────


@contextmanager
def mlflow(answers: dict[str, tuple[int, Any]], patch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A server that answers these paths; gives what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            status, body = answers[self.path.partition("?")[0].removeprefix("/api/2.0/mlflow/")]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        patch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
        yield asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


GET, VERSION = "registered-models/get", "model-versions/get"


def entry(**aliases: str) -> tuple[int, Any]:
    """What MLflow says of a registered model."""
    said = [{"alias": alias, "version": version} for alias, version in aliases.items()]
    return 200, {"registered_model": {"name": MODEL, "aliases": said}}


def version(**tags: str) -> tuple[int, Any]:
    """What MLflow says of a version."""
    return 200, {
        "model_version": {"tags": [{"key": f"evergreen.{key}", "value": value} for key, value in tags.items()]}
    }


def test_the_champion_is_known_without_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """By two small questions; a model without champion, and one that is not there, have none."""
    with mlflow(
        {GET: entry(champion="2", former="1"), VERSION: version(candidate=NEW.candidate)}, monkeypatch
    ) as asked:
        assert champion.wanted(MODEL) == NEW
    assert [path.rpartition("/")[2] for path in asked] == ["get?name=late", "get?name=late&version=2"]
    with mlflow({GET: entry(former="1")}, monkeypatch):
        assert champion.wanted(MODEL) is None
    with mlflow({GET: (404, {"error_code": "RESOURCE_DOES_NOT_EXIST"})}, monkeypatch):
        assert champion.wanted(MODEL) is None


@pytest.mark.parametrize(
    "answers",
    [
        {GET: entry(champion="2"), VERSION: version(candidate=NEW.candidate, withdrawn="by a person")},
        {GET: entry(champion="2"), VERSION: version()},
        {GET: (500, {})},
        {GET: (404, {"error_code": "ENDPOINT_NOT_FOUND"})},
    ],
)
def test_what_is_not_plain_is_left_to_the_registry(answers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rollback that was killed half-way, an answer that is not understood: it knows the states in between."""
    from tasks.release import registry

    found = registry.Version(MODEL, 1, OLD.candidate, "run", "2026-11-20")
    monkeypatch.setattr(registry, "champion", lambda _: found)
    with mlflow(answers, monkeypatch):
        assert champion.wanted(MODEL) == OLD
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///somewhere.db")
    assert champion.wanted(MODEL) == OLD


def test_a_change_is_seen_without_mlflow_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who looks every two seconds imports nothing heavy."""
    plain = {GET: entry(champion="2"), VERSION: version(candidate=NEW.candidate)}
    with mlflow(plain, monkeypatch):
        assert champion.change(MODEL) == (NEW.candidate, None)
        serving.write(MODEL, Serving(OLD))
        assert champion.change(MODEL) == (NEW.candidate, OLD.candidate)
        serving.write(MODEL, Serving(NEW))
        assert champion.change(MODEL) is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///somewhere.db")
    serving.write(MODEL, Serving(OLD))
    assert champion.change(MODEL) is None
