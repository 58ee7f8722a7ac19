"""`evergreen_client`, against a real router; and against one that answers as a real one does under load."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from deployments.serving import api_keys
from evergreen_client import (
    AsyncClient,
    Client,
    EvergreenError,
    Failed,
    Refused,
    Unauthorized,
    Unavailable,
    UnknownModel,
    Unreachable,
)
from evergreen_client import __main__ as command
from evergreen_client.answers import plain_rows
from tasks.ground.http import free_port
from tests.conftest import REPOSITORY
from tests.deployments.routed import MODEL, ROW, Routed, make_release
from tests.release_root import project_at


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Routed]:
    """A router with a live release of flight_delay."""
    root = tmp_path_factory.mktemp("asked")
    routed = Routed(root, make_release(root), free_port())
    routed.start()
    routed.serve(routed.candidate)
    yield routed
    routed.stop()


def test_rows_are_answered_in_their_order(router: Routed) -> None:
    """Typed, as the router answers them itself; in requests of at most max_rows."""
    client = Client(router.url)
    rows = [{**ROW, "hour": hour % 24} for hour in range(2050)]
    answer = client.predict(MODEL, rows, keys=[f"k{i}" for i in range(2050)])
    assert len(answer) == 2050
    direct = router.post(rows[:24]).json()
    assert [each.prediction for each in answer[:24]] == [each["prediction"] for each in direct["predictions"]]
    assert [each.probability for each in answer[:24]] == [each["probability"] for each in direct["predictions"]]
    assert answer.version == direct["version"]
    assert len({each.id for each in answer}) == 2050
    keyed = [line["keys"] for line in router.logged() if line["keys"]]
    assert sorted(map(len, keyed)) == [50, 1000, 1000]


def test_a_frame_is_taken_as_it_is(router: Routed) -> None:
    """Numbers of numpy, and what is missing in whatever way."""
    frame = pd.DataFrame([{**ROW, "temp": np.nan, "wind_gust": None}, {**ROW, "temp": 70.5, "wind_gust": 20.0}])
    answer = Client(router.url).predict(MODEL, frame)
    assert [each.prediction for each in answer] == [
        each["prediction"]
        for each in router.post([ROW, {**ROW, "temp": 70.5, "wind_gust": 20.0}]).json()["predictions"]
    ]


def test_every_value_that_a_frame_holds_has_its_json() -> None:
    """As JSON has it, or as null."""
    values = {
        "a": np.int64(3), "b": np.float64(1.5), "c": np.bool_(True), "d": pd.NA, "e": pd.NaT, "f": float("nan"),
        "g": pd.Timestamp("2013-01-01"), "h": np.array([1, 2]), "i": "text", "j": None, "k": 3,
    }  # fmt: skip
    assert plain_rows([values]) == [
        {"a": 3, "b": 1.5, "c": True, "d": None, "e": None, "f": None, "g": "2013-01-01T00:00:00", "h": [1, 2],
         "i": "text", "j": None, "k": 3}
    ]  # fmt: skip


def test_a_refusal_says_row_field_and_problem(router: Routed) -> None:
    """The row by its place among all of them, also in the second request."""
    rows = [ROW] * 1005
    rows[1003] = {**ROW, "hour": 99}
    with pytest.raises(Refused, match="row 1003: hour: Input should be less than or equal to 23") as caught:
        Client(router.url).predict(MODEL, rows)
    assert caught.value.status == 400
    assert [(each["row"], each["field"]) for each in caught.value.detail] == [(1003, "hour")]
    with pytest.raises(ValueError, match="there are 1 rows and 2 keys"):
        Client(router.url).predict(MODEL, [ROW], keys=["a", "b"])


def test_rows_too_large_for_one_body_are_asked_in_parts(router: Routed) -> None:
    """As a thousand pictures are: what is refused is a row, and not the size of all of them."""
    rows = [ROW] * 500 + [{**ROW, "carrier": "U" * 12_000} for _ in range(500)]
    with pytest.raises(Refused, match="row 500: carrier: String should have at most 200 characters") as caught:
        Client(router.url).predict(MODEL, rows)
    assert caught.value.status == 400


def test_an_explanation_is_typed(router: Routed) -> None:
    """The features that moved the answer most come first; with the usual answer they add up to it."""
    found = Client(router.url).explain(MODEL, ROW)
    sizes = [abs(each.contribution) for each in found.contributions]
    assert sizes == sorted(sizes, reverse=True)
    assert found.base + sum(each.contribution for each in found.contributions) == pytest.approx(found.value)


def test_a_model_that_is_not_served_is_told(router: Routed) -> None:
    """With those that are."""
    client = Client(router.url)
    assert client.models() == [MODEL]
    assert client.release(MODEL)["candidate"] == router.candidate
    with pytest.raises(UnknownModel, match="'flight_dely' is not served here; these are: flight_delay"):
        client.predict("flight_dely", [ROW, ROW])
    with pytest.raises(UnknownModel):
        client.predict("flight_dely", [ROW])


def test_a_key_is_sent_where_one_is_needed(router: Routed) -> None:
    """And without it the router's words are told."""
    with project_at(router.root):
        key = api_keys.add("client")
    try:
        with pytest.raises(Unauthorized, match="an API key is needed"):
            Client(router.url).predict(MODEL, [ROW])
        assert len(Client(router.url, key=key).predict(MODEL, [ROW])) == 1
    finally:
        with project_at(router.root):
            api_keys.remove("client")
            api_keys.open_to_all()


def test_requests_are_awaited_side_by_side(router: Routed) -> None:
    """As many as are allowed, each with its own answer."""

    async def ask() -> list[Any]:
        client = AsyncClient(router.url, concurrency=4)
        several = [client.predict(MODEL, [{**ROW, "hour": hour}]) for hour in range(12)]
        return [await client.explain(MODEL, ROW), *await asyncio.gather(*several)]

    explained, *answers = asyncio.run(ask())
    direct = Client(router.url).predict(MODEL, [{**ROW, "hour": hour} for hour in range(12)])
    assert [each[0].probability for each in answers] == [each.probability for each in direct]
    assert explained.contributions


def test_types_of_rows_are_written(router: Routed, capsys: pytest.CaptureFixture[str]) -> None:
    """A module that Python takes; what may be missing is not required."""
    assert command.main(["types", router.url, MODEL]) == 0
    text = capsys.readouterr().out
    module: dict[str, Any] = {}
    exec(compile(text, "types", "exec"), module)
    row = module["FlightDelayRow"]
    assert row.__required_keys__ >= {"carrier", "hour"}
    assert "temp" in row.__optional_keys__
    assert "'hour': int,  # Hour of the scheduled departure" in text
    assert command.main(["types", router.url, "nothing"]) == 1
    assert "UnknownModel: 'nothing' is not served here" in capsys.readouterr().err


# ── a router under load ───────────────────────────────────────────────────────────────────────────


Reply = tuple[int, dict[str, Any], dict[str, str]]
GOOD: Reply = (200, {"model": "m", "version": "1", "predictions": [{"id": "a", "prediction": 1}]}, {})
FULL: Reply = (503, {"error": "too much waits"}, {"retry-after": "1"})


@contextmanager
def answering(*replies: Reply | None) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A server that gives these answers, one after the other (the last one for ever); None: it hangs up."""
    asked: list[dict[str, str]] = []
    left = list(replies)

    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            asked.append(dict(self.headers))
            reply = left.pop(0) if len(left) > 1 else left[0]
            if reply is None:
                self.close_connection = True
                return
            status, content, headers = reply
            body = json.dumps(content).encode()
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_it_asks_again_when_the_router_says_when() -> None:
    """Under one name, so that the log shows one request; not before the seconds are over."""
    with answering(FULL, GOOD) as (url, asked):
        begin = time.monotonic()
        assert Client(url).predict("m", [{}])[0].prediction == 1
        assert time.monotonic() - begin >= 1
    assert len({headers["x-request-id"] for headers in asked}) == 1
    assert len(asked) == 2


def test_it_asks_again_when_the_connection_breaks() -> None:
    """Nothing was changed by the first request."""
    with answering(None, None, GOOD) as (url, asked):
        assert Client(url).predict("m", [{}])[0].id == "a"
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("reply", "error", "times"),
    [
        (FULL, Unavailable, 3),
        ((503, {"error": "no release is ready"}, {"retry-after": "900"}), Unavailable, 1),
        ((500, {"error": "the model fails"}, {}), Failed, 1),
        ((400, {"error": "1 row is refused", "detail": []}, {}), Refused, 1),
        (None, Unreachable, 3),
    ],
)
def test_it_gives_up_in_time(reply: Reply | None, error: type[EvergreenError], times: int) -> None:
    """After its tries, and never past its timeout; what cannot become better is not asked again."""
    with answering(reply) as (url, asked):
        begin = time.monotonic()
        with pytest.raises(error):
            Client(url, retries=2, timeout=5).predict("m", [{}])
        assert time.monotonic() - begin < 5
    assert len(asked) == times


def test_a_router_that_is_not_there_is_told() -> None:
    """And an address that is none."""
    with pytest.raises(Unreachable, match="does not answer"):
        Client(f"http://127.0.0.1:{free_port()}", retries=0).models()
    with pytest.raises(ValueError, match="'localhost:3000' is no address of a router"):
        Client("localhost:3000")


def test_it_needs_the_standard_library_alone(tmp_path: Path) -> None:
    """It goes into other people's services."""
    code = f"import sys; sys.path.insert(0, {str(REPOSITORY / 'client')!r}); import evergreen_client.__main__"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], cwd=tmp_path, check=True)
