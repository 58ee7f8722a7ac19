"""The API, asked by people who mean no good: no 5xx, no hang, no growth, and the golden rows answered as ever."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pickle
import random
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from tasks.ground import files
from tasks.ground.http import free_port
from tests.deployments.conftest import until
from tests.deployments.routed import BODY, CLIENT, MODEL, ROW, Routed, make_release

PATIENCE = 3
"""Seconds that this router waits for a head or a body."""


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Routed]:
    """A router that is less patient than usual, and serves one release."""
    root = tmp_path_factory.mktemp("fuzzed")
    routed = Routed(root, make_release(root), free_port())
    routed.start(
        "from deployments.serving import http_protocol, request_body\n"
        f"request_body.BODY_S = http_protocol.HEAD_S = {PATIENCE}.0"
    )
    routed.serve(routed.candidate)
    yield routed
    routed.stop()


@pytest.fixture(autouse=True)
def _lives_on(router: Routed) -> Iterator[None]:
    """After each test, the same processes answer the golden rows as they were evaluated, and nothing was a defect."""
    before = (router.process.pid, router.releases()[router.candidate]["pids"]) if router.process else None
    yield
    golden = files.read_json(router.root / "release" / "golden.json")
    answer = router.post([one["row"] for one in golden])
    assert answer.status_code == 200, answer.text
    for one, predicted in zip(golden, answer.json()["predictions"], strict=True):
        assert {f"p_{c}": p for c, p in predicted["probabilities"].items()} == one["predicted"]
    assert router.process
    assert (router.process.pid, router.releases()[router.candidate]["pids"]) == before
    assert router.releases()[router.candidate]["errors"] == 0
    said = router.said() + "".join(path.read_text() for path in (router.root / "var" / "log").rglob("*.log"))
    assert "Traceback" not in said, said[-3000:]


@pytest.mark.slow
def test_the_api_holds_what_its_own_description_says(router: Routed, tmp_path: Path) -> None:
    """Schemathesis makes requests of the OpenAPI document, good ones and bad ones, some hundred.

    Left out is that whatever is valid by the description is accepted: its language has no word for «as many keys as
    rows», nor for the years that a time may be of.
    """
    command = [str(Path(sys.executable).parent / "schemathesis"), "run", f"{router.url}/openapi.json", "--no-color"]
    command += [
        "--checks",
        "all",
        "--exclude-checks",
        "positive_data_acceptance",
        "--max-examples",
        "10",
        "--seed",
        "1",
    ]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONWARNINGS": ""}
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "14 selected / 14 total" in done.stdout
    tested = re.search(r"(\d+) generated", done.stdout)
    assert tested, done.stdout[-3000:]
    assert int(tested[1]) > 100, tested[0]


# ── HTTP that is none ─────────────────────────────────────────────────────────────────────────────


def say(router: Routed, *parts: bytes, seconds: float = 20) -> bytes:
    """Send bytes, and give all that comes until the connection is closed, or one whole answer has come."""
    with socket.create_connection(("127.0.0.1", router.port), timeout=seconds) as client:
        heard = b""
        try:
            for part in parts:
                client.sendall(part)
            while came := client.recv(65536):
                heard += came
                if _is_whole(heard):
                    break
        except (ConnectionResetError, BrokenPipeError):  # it has heard enough
            return heard + b"(reset)"
        return heard


def _is_whole(heard: bytes) -> bool:
    head, end, body = heard.partition(b"\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(end and lengths and len(body) >= int(lengths[0].partition(b":")[2]))


HEAD = b"POST /%b/predict HTTP/1.1\r\nhost: x\r\n" % MODEL.encode()
WHOLE = HEAD + b"content-length: %d\r\n\r\n" % len(BODY) + BODY
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n%x\r\n" % len(BODY) + BODY + b"\r\n0\r\n"
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\n"


@pytest.mark.parametrize(
    ("status", "sent"),
    [
        (200, WHOLE),
        (200, CHUNKED + b"\r\n"),
        (400, HEAD + b"\r\n"),
        (400, HEAD + b"content-length: 20\r\n\r\n" + BODY),
        (400, HEAD + b"content-length: -1\r\n\r\n"),
        (400, HEAD + b"content-length: 1e3\r\n\r\n"),
        (400, HEAD + b"content-length: \xb2\r\n\r\n"),
        (400, HEAD + b"content-length: 99999999999999999999999999\r\n\r\n"),
        (400, HEAD + b"content-length: 5\r\ncontent-length: 6\r\n\r\n" + BODY),
        (400, HEAD + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        (400, HEAD + b"transfer-encoding: chunked, identity\r\n\r\n" + BODY),
        (400, HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n"),
        (408, HEAD + b"transfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n"),
        (408, HEAD + b"content-length: 9999\r\n\r\n" + BODY),
        (408, HEAD + b"content-length: 9999\r\n\r\n"),
        (408, HEAD[:-9]),
        (408, b"P"),
        (413, HEAD + b"content-length: 5000001\r\n\r\n"),
        (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        (400, b"GET /\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nhost: x\r\nx: a\x00b\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nhost x\r\n\r\n"),
        (400, b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n"),
        (404, b"GET /%ff%00%0d%0a/live HTTP/1.1\r\nhost: x\r\n\r\n"),
        (404, b"GET /../../etc/passwd HTTP/1.1\r\nhost: x\r\n\r\n"),
        (405, b"TRACE /healthz HTTP/1.1\r\nhost: x\r\n\r\n"),
        (405, b"OPTIONS /%b/predict HTTP/1.1\r\nhost: x\r\n\r\n" % MODEL.encode()),
        (200, b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"),
        (200, HEAD + b"evergreen-key: " + b"\xe9" * 300 + b"\r\n" + WHOLE[len(HEAD) :]),
        (200, HEAD + b"x-request-id: " + b"\xff" * 50 + b"\r\n" + WHOLE[len(HEAD) :]),
        (200, HEAD + b"expect: nonsense\r\n" + WHOLE[len(HEAD) :]),
        (200, HEAD + H2C + WHOLE[len(HEAD) :]),
        (200, HEAD + H2C.lower() + WHOLE[len(HEAD) :]),
        (200, HEAD + b"connection: upgrade\r\nUPGRADE: TLS/1.2\r\n" + WHOLE[len(HEAD) :]),
    ],
)
def test_each_request_gets_its_status_and_no_connection_is_left_waiting(
    router: Routed, status: int, sent: bytes
) -> None:
    """Bad lengths, bad chunks, other protocols, half a request: 4xx, and soon."""
    begin = time.monotonic()
    heard = say(router, sent)
    assert heard.startswith(b"HTTP/1.1 %d " % status), heard
    assert time.monotonic() - begin < 3 * PATIENCE


@pytest.mark.long
def test_who_asks_on_and_on_and_hears_nothing_does_not_fill_the_memory(router: Routed) -> None:
    """Requests in a row on one connection are read as they are answered; all are, once somebody listens."""
    assert router.process
    process, asked = psutil.Process(router.process.pid), b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
    before, sent = process.memory_info().rss, 0
    with socket.create_connection(("127.0.0.1", router.port), timeout=2) as client:
        row = asked * 10_000
        try:
            while sent < 40_000_000:
                sent += client.send(row[sent % len(asked) :])
        except TimeoutError:
            pass
        assert process.memory_info().rss - before < 100_000_000
        whole, heard, status, end = sent // len(asked), 0, b"HTTP/1.1 200", b""
        client.settimeout(60)
        while heard < whole:
            said = end + client.recv(1_000_000)
            heard, end = heard + said.count(status), said[1 - len(status) :]  # one may come in two pieces
            assert process.memory_info().rss - before < 100_000_000


def test_bodies_that_do_not_end_are_too_many_at_some_time(router: Routed) -> None:
    """Sixteen times what one may hold; then who comes is told when to come back, and later is answered."""
    edits = "serving: {max_rows: 1000}", "serving: {max_rows: 1000, max_bytes: 2000}"
    params_file = router.root / "params.yaml"
    text = params_file.read_text(encoding="utf-8")
    params_file.write_text(text.replace(*edits), encoding="utf-8")
    try:
        until(lambda: router.post(b"x" * 2001).status_code == 413, 10)
        with contextlib.ExitStack() as held:
            for n in range(20):
                client = held.enter_context(socket.create_connection(("127.0.0.1", router.port), timeout=10))
                client.sendall(HEAD + b"content-length: 2000\r\n\r\n" + b" " * 1999)
                if n > 16:
                    heard = client.recv(1000)
                    assert heard.startswith(b"HTTP/1.1 503 "), heard
                    assert b"retry-after: 1\r\n" in heard
        until(lambda: router.post().status_code == 200, 10)
    finally:
        params_file.write_text(text, encoding="utf-8")
        until(lambda: router.post(b"x" * 2001).status_code == 400, 10)


def test_a_client_that_offers_http2_is_answered_on_and_on(router: Routed) -> None:
    """As Java's does with each request that it posts: nothing of the body is lost, and the connection goes on."""
    with socket.create_connection(("127.0.0.1", router.port), timeout=20) as client:
        for _ in range(3):
            client.sendall(HEAD + H2C + WHOLE[len(HEAD) :])
            heard = b""
            while not _is_whole(heard):
                heard += client.recv(65536)
            assert heard.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "endless",
    [
        HEAD + b"x: " + b"a" * 10_000_000,
        HEAD + b"".join(b"x-%d: %d\r\n" % (n, n) for n in range(300_000)),
        b"GET /" + b"a" * 10_000_000,
        b"\r\n" * 5_000_000,
        CHUNKED + b"".join(b"x-%d: %d\r\n" % (n, n) for n in range(300_000)),
        HEAD + b"transfer-encoding: chunked\r\n\r\n1;" + b"a" * 10_000_000,
    ],
    ids=["a header", "headers", "a path", "lines", "trailers", "an extension of a chunk"],
)
def test_a_head_without_an_end_is_cut_off(router: Routed, endless: bytes) -> None:
    """Its beginning is enough; none of it stays in memory."""
    assert router.process
    before = psutil.Process(router.process.pid).memory_info().rss
    for _ in range(3):
        heard = say(router, endless)
        assert heard.startswith(b"HTTP/1.1 4") or heard == b"(reset)", heard
    assert psutil.Process(router.process.pid).memory_info().rss - before < 5_000_000


def test_requests_may_come_before_the_answers_to_others_have_gone(router: Routed) -> None:
    """Pipelining: a hundred in one go, good and bad, are answered in their order; and split anywhere."""
    other = json.dumps({"rows": [{**ROW, "hour": 99}]}).encode()
    bad = HEAD + b"content-length: %d\r\n\r\n" % len(other) + other
    stream = (WHOLE + bad) * 50
    for cut in (len(stream), 7, 1000):
        with socket.create_connection(("127.0.0.1", router.port), timeout=30) as client:
            client.sendall(stream[:cut])
            client.sendall(stream[cut:])
            heard = b""
            while heard.count(b"HTTP/1.1 ") < 100 or not heard.endswith(b"}]}"):
                heard += client.recv(1 << 20)
        assert [part[:3] for part in heard.split(b"HTTP/1.1 ")[1:]] == [b"200", b"400"] * 50


def test_clients_that_send_a_letter_a_second_hold_up_nobody(router: Routed) -> None:
    """A hundred of them, in their heads and in their bodies: the others are answered, and they are shown out."""
    begin, answered = time.monotonic(), []
    heads = [socket.create_connection(("127.0.0.1", router.port)) for _ in range(50)]
    bodies = [socket.create_connection(("127.0.0.1", router.port)) for _ in range(50)]
    for client in heads:
        client.sendall(b"GET /h")
    for client in bodies:
        client.sendall(HEAD + b"content-length: 5000\r\n\r\n{")
    while (heads or bodies) and time.monotonic() - begin < 20:
        asked = time.monotonic()
        assert router.post().status_code == 200
        answered.append(time.monotonic() - asked)
        for clients in (heads, bodies):
            clients[:] = [client for client in clients if not _is_shown_out(client)]
        time.sleep(0.5)
    assert (heads, bodies) == ([], [])
    assert time.monotonic() - begin > PATIENCE - 1
    assert max(answered) < 3


def _is_shown_out(client: socket.socket) -> bool:
    """Send another letter; whether that was one too many."""
    try:
        client.sendall(b" ")
        client.settimeout(0.001)
        client.recv(1000)  # it is told why, or nothing comes, or the connection is gone
    except TimeoutError:
        client.settimeout(None)
        return False
    except ConnectionError:
        pass
    client.close()
    return True


def test_a_client_that_goes_on_after_a_refusal_hears_it_first_and_is_shown_out_later(router: Routed) -> None:
    """Who posts too much at a time gets to know: the connection is not torn down over his head."""
    answer = CLIENT.post(f"{router.url}/{MODEL}/predict", content=b"x" * 20_000_000)
    assert answer.status_code == 413
    with socket.create_connection(("127.0.0.1", router.port), timeout=20) as client:
        client.sendall(HEAD + b"content-length: 4000000000\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 413 ")

        def is_out() -> bool:
            try:
                client.sendall(b"x" * 100_000)
            except ConnectionError:
                return True
            return False

        until(is_out, 3 * PATIENCE)


# ── JSON that is none, and rows that are none ─────────────────────────────────────────────────────


class Evil:
    """Runs code where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


def with_value(text: str, name: str = "temp") -> bytes:
    """A row in which one value is this text."""
    row = json.dumps({key: value for key, value in ROW.items() if key != name})
    return f'{{"rows": [{row[:-1]}, "{name}": {text}}}]}}'.encode()


HOSTILE: dict[str, bytes] = {
    "nothing": b"",
    "lists in lists": b"[" * 1_000_000,
    "objects in objects": b'{"rows":' * 500_000,
    "closed lists in lists": b"[" * 2_000_000 + b"]" * 2_000_000,
    "a long number": with_value("9" * 4_000_000),
    "a long fraction": with_value("0." + "1" * 4_000_000),
    "a large exponent": with_value("1e99999999999999999999"),
    "a small exponent": with_value("1e-99999999999999999999", "distance"),
    "not a number": with_value("NaN"),
    "infinity": with_value("-Infinity"),
    "minus zero": with_value("-0.0", "distance"),
    "a negative number": with_value("-1", "distance"),
    "a long text": with_value('"' + "x" * 4_900_000 + '"', "carrier"),
    "ten megabytes": with_value('"' + "x" * 10_000_000 + '"', "carrier"),
    "null bytes": with_value('"\\u0000"', "carrier"),
    "raw null bytes": with_value('"\x00"', "carrier"),
    "half a surrogate": with_value('"\\ud83d"', "carrier"),
    "surrogates the wrong way": with_value('"\\ude00\\ud83d"', "carrier"),
    "letters that turn around": with_value('"\u202eUA"', "carrier"),
    "no utf-8": with_value('"X"', "carrier").replace(b'"X"', b'"\xff\xfe\xc0\x80"'),
    "utf-16": BODY.decode().encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + BODY,
    "half a body": BODY[:-5],
    "two bodies": BODY + BODY,
    "keys that stand twice": BODY.replace(b'"carrier"', b'"carrier": "AA", "carrier"'),
    "rows that stand twice": b'{"rows": [], ' + BODY[1:],
    "many unknown keys": json.dumps({"rows": [{f"x{n}": n for n in range(250_000)}]}).encode(),
    "many unknown keys above": json.dumps({f"x{n}": n for n in range(250_000)}).encode(),
    "many empty rows": b'{"rows": [' + b"{}," * 1_000_000 + b"{}]}",
    "many bad rows": json.dumps({"rows": [{**ROW, "hour": "x"}] * 1000}).encode(),
    "many names of rows": b'{"rows": [{}], "keys": [' + b"1," * 2_000_000 + b"1]}",
    "a time before all": BODY[:-1] + b', "time": "0001-01-01T00:00:00+14:00"}',
    "a time after all": BODY[:-1] + b', "time": "9999-12-31T23:59:59-14:00"}',
    "the number of a prediction": b'{"rows": [-1]}',
    "a pickle": pickle.dumps({"rows": [ROW]}),
    "inherited things": json.dumps({"rows": [{**ROW, "__class__": 1, "__dict__": {}, "model_fields": 2}]}).encode(),
}
STATUSES = {
    "minus zero": 200,
    "a long fraction": 200,
    "a small exponent": 200,
    "null bytes": 200,
    "letters that turn around": 200,
    "keys that stand twice": 200,
    "rows that stand twice": 200,
    "ten megabytes": 413,
}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_a_hostile_body_is_refused_soon_and_others_are_not_kept_waiting(router: Routed, name: str) -> None:
    """400 as JSON; what is valid after all is answered; an explanation is refused alike."""
    begin = time.monotonic()
    answer = router.post(HOSTILE[name])
    assert answer.status_code == STATUSES.get(name, 400), answer.text[:500]
    assert "predictions" in answer.json() if answer.status_code == 200 else answer.json()["error"]
    assert len(answer.content) < 20_000
    assert router.post(HOSTILE[name], path=f"/{MODEL}/explain").status_code in (400, 413)
    assert time.monotonic() - begin < 10


@pytest.mark.parametrize(
    "kind", ["application/vnd.bentoml+pickle", "application/octet-stream", "text/x; charset=utf-7"]
)
def test_no_pickle_is_opened_whatever_it_is_called(router: Routed, tmp_path: Path, kind: str) -> None:
    """The content type is not looked at: what is posted is JSON or nothing."""
    body = pickle.dumps(Evil(tmp_path / "was-here"))
    for path in (f"/{MODEL}/predict", f"/{MODEL}/explain", f"/operator/{MODEL}/{router.candidate}/predict"):
        answer = router.post(body, path=path, content_type=kind, authorization=f"Bearer {router.token()}")
        assert answer.status_code == 400
    time.sleep(0.2)
    assert not (tmp_path / "was-here").exists()


@pytest.mark.long
def test_thousands_of_hostile_requests_leave_no_trace_in_memory(router: Routed) -> None:
    """The router and its replica do not grow: not by thousands of small ones, and by large ones only once."""
    small = [body for body in HOSTILE.values() if len(body) < 100_000]
    _post_all(router, small * 20)
    before = _memory(router, "VmRSS")
    statuses = _post_all(router, small * 150)
    after = _memory(router, "VmRSS")
    assert statuses.total() > 3000
    assert set(statuses) <= {200, 400}
    assert all(after[pid] - held < 20_000 for pid, held in before.items()), (before, after)
    _post_all(router, [*HOSTILE.values()], clients=1)
    before = _memory(router, "VmHWM")
    _post_all(router, [*HOSTILE.values()] * 3, clients=1)
    after = _memory(router, "VmHWM")
    assert all(after[pid] - held < 50_000 for pid, held in before.items()), (before, after)


def _post_all(router: Routed, bodies: list[bytes], clients: int = 8) -> Counter[int]:
    """From clients that keep their connections, in any order."""
    shuffled = random.Random(len(bodies)).sample(bodies, len(bodies))

    def post(mine: list[bytes]) -> Counter[int]:
        seen: Counter[int] = Counter()
        connection = http.client.HTTPConnection("127.0.0.1", router.port, timeout=60)
        for body in mine:
            connection.request("POST", f"/{MODEL}/predict", body)
            answer = connection.getresponse()
            answer.read()
            seen[answer.status] += 1
        connection.close()
        return seen

    with ThreadPoolExecutor(clients) as pool:
        return sum(pool.map(post, [shuffled[n::clients] for n in range(clients)]), Counter())


def _memory(router: Routed, which: str) -> dict[int, int]:
    """Process → kilobytes that it holds (VmRSS), or held at most (VmHWM): the router's and its replicas'."""
    assert router.process
    held = {}
    for pid in (router.process.pid, *router.releases()[router.candidate]["pids"]):
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        held[pid] = next(int(line.split()[1]) for line in lines if line.startswith(which))
    return held
