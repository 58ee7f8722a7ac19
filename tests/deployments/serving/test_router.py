"""The router, a real one: what it answers, what it refuses, and that no request is lost while releases come and go."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from scipy.stats import binom

from deployments.serving import api_keys
from deployments.serving import router as routing
from deployments.serving.admission import Admission
from deployments.serving.cors import Origins
from deployments.serving.reconciler import Reconciler
from deployments.tools import load as load_tool
from tasks.ground import files, params, paths, priority, settings
from tasks.ground.errors import Mistake, ParamsError
from tasks.ground.http import free_port
from tasks.prediction_log import error_counts
from tasks.release.package import package
from tasks.release.registry import desired_state as rollouts
from tasks.release.rollout import router_client
from tests.deployments.conftest import until
from tests.deployments.routed import BODY, CLIENT, MODEL, ROW, Routed, load, make_release
from tests.deployments.sessions import are_weighed, session_nice
from tests.release_root import project_at

BEGIN = "        columns: list[Any] = ["

POISON = (BEGIN, f'        if "POISON" in list(X["dest"]):\n            __import__("os")._exit(9)\n{BEGIN}')
"""A pipeline that takes its process along when it sees this."""

COMPUTE = 'end = __import__("time").process_time() + 2\n            while __import__("time").process_time() < end: pass'
SLOW = (BEGIN, f'        __import__("time").sleep(0.3)\n{BEGIN}')
ONCE = 'if "HANG" in list(X["dest"]) and not __import__("os").path.exists("hung")'
HANG = 'open("hung", "w").close()\n            __import__("time").sleep(600)'
HANGING = (BEGIN, f"        {ONCE}:\n            {HANG}\n{BEGIN}")
BUSY = (BEGIN, f"        if len(X) > 900:\n            {COMPUTE}\n{BEGIN}")
FAILING = (BEGIN, f'        if "LAX" in list(X["dest"]):\n            raise ArithmeticError("LAX")\n{BEGIN}')
READ = "        return request\n\n    def _score_or_fail("
OLD = ('    first |= {"tensors": translator.metadata()}\n', "")
"""A release that was packaged before it spoke the Open Inference Protocol: its first frame names no tensors."""
NARROW = (READ, f'        if b"LAX" in body:\n            return Answer(400, b"{{}}")\n{READ}')


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Routed]:
    """A project with releases; no router runs yet."""
    root = tmp_path_factory.mktemp("routed")
    candidate = make_release(root)
    routed = Routed(root, candidate, free_port())
    routed.variant("other0000000000")
    routed.variant("poison000000000", tasks__runtime__ordinal_codes=POISON)
    routed.variant("slow00000000000", tasks__runtime__ordinal_codes=SLOW)
    routed.variant("failing00000000", tasks__runtime__ordinal_codes=FAILING)
    routed.variant("narrow000000000", tasks__runtime__predictor=NARROW)
    routed.variant("busy00000000000", tasks__runtime__ordinal_codes=BUSY)
    routed.variant("hangs0000000000", tasks__runtime__ordinal_codes=HANGING)
    routed.variant("old000000000000", tasks__runtime__replica=OLD)
    broken = routed.src(routed.variant("broken000000000")) / "model.skops"
    broken.write_bytes(broken.read_bytes()[:-1] + b"!")
    yield routed
    if routed.process and routed.process.poll() is None:
        routed.stop()


QUICK = """
from deployments.serving import reconciler
reconciler.GONE_S, router.SAVE_S = 3.0, 0.2
"""

CONFIGURED = f"""{QUICK}
import os
os.environ["EVERGREEN_OPEN_PAGES"] = " /metrics, openapi.json"
os.environ["EVERGREEN_ORIGINS"] = "https://shop.example, http://localhost:5173/"
from deployments.serving import served_model
served_model.CANARY_S = 0.15
"""


@pytest.fixture
def router(project: Routed) -> Iterator[Routed]:
    """The router, with the first release live and nothing beside it."""
    yield _started(project, QUICK)
    assert "Traceback" not in project.said(), project.said()


@pytest.fixture
def configured(project: Routed) -> Routed:
    """The router with other settings; its tests stand together at the end, so that it is started once more only."""
    return _started(project, CONFIGURED)


def _started(project: Routed, code: str) -> Routed:
    """As if no test had been before."""
    is_running = project.process is not None and project.process.poll() is None
    if is_running and project.started_with != code:
        project.stop()
    if not is_running or project.started_with != code:
        project.start(code)
    _forget_keys(project)
    project.serve(project.candidate)
    return project


def _forget_keys(project: Routed) -> None:
    """Whatever a test has left of them."""
    with project_at(project.root):
        files.write_json(paths.api_keys(), {})
        api_keys.open_to_all()


@contextmanager
def _edited_params(router: Routed, old: str, new: str) -> Iterator[None]:
    """While this lasts, params.yaml says something else."""
    path = router.root / "params.yaml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    files.write_text(path, text.replace(old, new))
    time.sleep(0.3)
    try:
        yield
    finally:
        files.write_text(path, text)
        time.sleep(0.3)


def _limited(router: Routed, limit: str) -> AbstractContextManager[None]:
    """While this lasts, `serving` has one more limit."""
    return _edited_params(router, "serving: {max_rows: 1000}", f"serving: {{max_rows: 1000, {limit}}}")


# ── what it answers ───────────────────────────────────────────────────────────────────────────────


def test_an_answer_says_what_was_predicted_by_whom(router: Routed) -> None:
    """In its body and its headers; the golden rows of the release are answered as they were evaluated."""
    golden = files.read_json(router.root / "release" / "golden.json")
    answer = router.post([one["row"] for one in golden])
    said = answer.json()
    assert answer.status_code == 200
    assert answer.headers["evergreen-release"] == said["release"] == f"{MODEL}:{router.candidate}"
    assert (said["model"], said["version"]) == (MODEL, "3")
    assert len(answer.headers["x-request-id"]) > 8
    facts = package.release_facts(router.root / "release")
    for one, predicted in zip(golden, said["predictions"], strict=True):
        assert {f"p_{c}": predicted["probabilities"][str(c)] for c in facts["classes"]} == one["predicted"]


def test_an_explanation_adds_up_to_the_prediction(router: Routed) -> None:
    """`POST …/explain` of one row."""
    said = router.post(json.dumps({"row": ROW}).encode(), f"/{MODEL}/explain").raise_for_status().json()
    predicted = router.post([ROW]).json()["predictions"][0]["probability"]
    assert said["value"] == predicted
    assert said["base"] + sum(one["contribution"] for one in said["contributions"]) == pytest.approx(predicted)


def test_what_is_asked_is_logged_with_the_ids_that_were_answered(router: Routed) -> None:
    """Also what was refused is not logged, and an explanation is not."""
    before = len(router.logged())
    named = router.post([ROW], evergreen_key="customer", x_request_id="mine-7")
    assert named.headers["x-request-id"] == "mine-7"
    assert router.post([{**ROW, "hour": 99}]).status_code == 400
    router.post(json.dumps({"row": ROW}).encode(), f"/{MODEL}/explain")
    line, *more = router.logged()[before:]
    assert more == []
    assert line["request"].startswith("mine-7~")
    assert line["ids"] == [named.json()["predictions"][0]["id"]]
    assert (line["model"], line["version"], line["release"]) == (MODEL, "3", router.candidate)
    assert line["rows"][0]["carrier"] == "UA"


def test_two_requests_of_one_name_are_two_lines_of_different_names(router: Routed) -> None:
    """A client may use a name twice; the log must not think that one was asked again."""
    before = len(router.logged())
    for _ in range(2):
        router.post([ROW], x_request_id="twice")
    assert len({line["request"] for line in router.logged()[before:]}) == 2


@pytest.mark.parametrize("name", ["x" * 65, "a\tb", "é"])
def test_a_request_id_that_is_none_is_not_repeated(router: Routed, name: str) -> None:
    """It would stand in logs."""
    answered = CLIENT.post(f"{router.url}/{MODEL}/predict", content=BODY, headers={"x-request-id": name.encode()})
    assert answered.status_code == 200
    assert answered.headers["x-request-id"] != name


def test_the_pages_say_what_is_live_and_where_it_comes_from(router: Routed) -> None:
    """For people, rollouts, probes and Prometheus."""

    def get(path: str) -> httpx.Response:
        return router.get(path).raise_for_status()

    live = get(f"/{MODEL}/live").json()
    assert live["live"] == {"candidate": router.candidate, "version": 3, "since": "2026-11-21T00:00:00Z"}
    assert (live["model"], live["canary"], live["ready"]) == (MODEL, None, True)
    facts = package.release_facts(router.root / "release")
    release = get(f"/{MODEL}/release").json()
    assert release == {**facts, "release": f"{MODEL}:{router.candidate}"}
    asked, answered = get(f"/{MODEL}/schema").json()["predict"]
    assert list(asked["$defs"]["Row"]["properties"]) == list(facts["columns"])
    assert "predictions" in answered["properties"]
    assert get("/healthz").json() == {"status": "alive"}
    assert get("/readyz").json() == {"status": "ready"}
    assert get("/").json()["models"][MODEL]["candidate"] == router.candidate
    described = get("/openapi.json").json()
    assert f"/{MODEL}/predict" in described["paths"]
    assert CLIENT.head(f"{router.url}/{MODEL}/live").content == b""


def test_the_example_of_the_openapi_document_works(router: Routed) -> None:
    """Whoever tries it gets a prediction, and an explanation."""
    described = router.get("/openapi.json").json()
    for verb in ("predict", "explain"):
        operation = described["paths"][f"/{MODEL}/{verb}"]["post"]
        named = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        example = described["components"]["schemas"][named]["example"]
        assert router.post(json.dumps(example).encode(), f"/{MODEL}/{verb}").status_code == 200


def test_status_counts_what_was_answered(router: Routed) -> None:
    """Who wants a window subtracts two looks."""
    before = router.releases()[router.candidate]
    router.post([ROW, ROW])
    router.post([{**ROW, "carrier": "ZZ"}])
    router.post([{}])
    router.post(json.dumps({"row": ROW}).encode(), f"/{MODEL}/explain")
    after = router.releases()[router.candidate]
    moved = {name: after[name] - before[name] for name in ("answered", "refused", "errors")}
    assert moved == {"answered": 2, "refused": 1, "errors": 0}
    assert sum(after["latency"]["counts"]) - sum(before["latency"]["counts"]) == 3
    until(lambda: _predicted(router) - sum(before["predictions"]["counts"]) == 3, 10)
    assert len(after["predictions"]["counts"]) == len(after["predictions"]["edges"]) + 1
    assert len(after["latency"]["counts"]) == len(after["latency"]["edges_ms"]) + 1
    assert (after["role"], after["state"], after["why"]) == ("live", "ready", None)
    assert after["log"] == {"trouble": None, "lost": 0}
    assert router.releases()[router.candidate]["unseen"]["carrier"] >= 1


def _predicted(router: Routed) -> int:
    return sum(router.releases()[router.candidate]["predictions"]["counts"])


def test_prometheus_is_told_the_same(router: Routed) -> None:
    """In its own format: answers by code, a histogram of latencies that adds up, what was unseen and lost."""
    from prometheus_client.parser import text_string_to_metric_families

    router.post([{**ROW, "dest": "ZZZ"}])
    router.post([{}])
    until(lambda: "dest" in router.releases()[router.candidate]["unseen"], 10)
    families = {f.name: f for f in text_string_to_metric_families(router.get("/metrics").text)}
    of = {"model": MODEL, "release": router.candidate}
    samples = [s for s in families["evergreen_requests"].samples if of.items() <= s.labels.items()]
    answers = {s.labels["code"]: s.value for s in samples}
    assert answers["200"] >= 1
    assert answers["400"] >= 1
    seconds = [s for s in families["evergreen_request_seconds"].samples if of.items() <= s.labels.items()]
    count = next(s.value for s in seconds if s.name.endswith("_count"))
    assert count == sum(answers.values())
    buckets = [s.value for s in seconds if s.name.endswith("_bucket")]
    assert buckets == sorted(buckets)
    assert buckets[-1] == count
    assert any(s.labels["feature"] == "dest" for s in families["evergreen_unseen_categories"].samples)
    assert {"evergreen_waiting_requests", "evergreen_log_lost", "evergreen_shed_requests"} <= set(families)


def test_many_requests_at_once_are_answered_as_one_by_one(router: Routed) -> None:
    """They are scored as batches; everybody gets the answer to what he asked."""
    rows = [{**ROW, "hour": n % 24, "minute": n % 60, "carrier": ["UA", "B6", "AA"][n % 3]} for n in range(120)]
    alone = [router.post([row]).json()["predictions"][0]["probability"] for row in rows]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda row: router.post([row]).json()["predictions"][0]["probability"], rows))
    assert together == alone


# ── what it refuses ───────────────────────────────────────────────────────────────────────────────


def test_an_unknown_model_is_told_what_might_be_meant(router: Routed) -> None:
    """404, before the body is read."""
    answer = router.post(path="/flight_delays/predict")
    assert answer.status_code == 404
    assert answer.json() == {"error": f"no model 'flight_delays' is served; did you mean '{MODEL}'?"}


def test_a_model_whose_first_champion_is_not_rolled_out_yet_is_no_unknown_one(router: Routed) -> None:
    """503 with Retry-After: what asks need not be changed, only later."""
    answer = router.post(path="/hourly_departures/predict")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"
    assert answer.json()["error"].startswith("hourly_departures is not served yet: its first champion is rolled out")


@pytest.mark.parametrize("path", ["/nothing", f"/{MODEL}/nothing", "/healthz/nothing", "/a/b/c", "/status/now/then"])
def test_an_unknown_path_is_told_which_there_are(router: Routed, path: str) -> None:
    """404."""
    answer = router.get(path)
    assert answer.status_code == 404
    assert "error" in answer.json()


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", f"/{MODEL}/predict", "POST"),
        ("DELETE", f"/{MODEL}/explain", "POST"),
        ("POST", f"/{MODEL}/live", "GET, HEAD"),
        ("PUT", "/status", "GET, HEAD"),
        ("POST", "/metrics", "GET, HEAD"),
        ("GET", f"/operator/{MODEL}/x/predict", "POST"),
    ],
)
def test_another_method_is_told_which_one(router: Routed, method: str, path: str, allowed: str) -> None:
    """405, with Allow."""
    answer = CLIENT.request(method, f"{router.url}{path}")
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


def test_a_body_in_chunks_is_refused_once_it_is_too_large(router: Routed) -> None:
    """No length was announced: it is counted."""

    def chunks() -> Iterator[bytes]:
        for _ in range(60):
            yield b"x" * 100_000

    assert CLIENT.post(f"{router.url}/{MODEL}/predict", content=chunks()).status_code == 413


def test_api_keys_come_and_go_without_a_restart(router: Routed) -> None:
    """Before the first: open. Then each of them, in either header; without the last one nobody, until it is opened."""
    with project_at(router.root):
        shop, app = api_keys.add("shop"), api_keys.add("app")
        assert router.post().status_code == 401
        assert router.post(authorization="Bearer nonsense").status_code == 401
        assert "www-authenticate" in router.post(authorization=f"Basic {shop}").headers
        assert router.post(authorization=f"Bearer {shop}").status_code == 200
        assert router.post(x_api_key=app).status_code == 200
        assert router.post(json.dumps({"row": ROW}).encode(), f"/{MODEL}/explain").status_code == 401
        assert router.get(f"/{MODEL}/release").status_code == 401
        assert router.get("/healthz").status_code == 200
        api_keys.remove("shop")
        assert router.post(authorization=f"Bearer {shop}").status_code == 401
        assert router.post(authorization=f"Bearer {app}").status_code == 200
        paths.api_keys().write_text("[]")
        assert router.post().status_code == 503
        assert router.post(authorization=f"Bearer {app}").status_code == 503
        paths.api_keys().unlink()
        assert router.post().status_code == 401
        files.write_json(paths.api_keys(), {})
        assert router.post().status_code == 401
        api_keys.open_to_all()
        assert router.post().status_code == 200
    assert shop not in router.said()
    assert "keys.json does not hold keys" in router.said()


def test_a_router_whose_folder_was_removed_is_opened_to_nobody(router: Routed) -> None:
    """Nor is the one that is started after it."""
    with project_at(router.root):
        api_keys.add("shop")
        assert router.post().status_code == 401
        shutil.rmtree(router.root / "var" / "serving")
        assert router.post().status_code == 401
        router.stop()
        router.start()
        router.want(router.candidate)
        assert router.post().status_code == 401
        api_keys.open_to_all()
        until(lambda: router.post().status_code == 200, 30)


@pytest.mark.parametrize("name", ["authorization", "Authorization", "AUTHORIZATION"])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bearer "])
def test_a_key_is_found_however_its_header_is_written(router: Routed, name: str, scheme: str) -> None:
    """A scheme has no case."""
    with project_at(router.root):
        key = api_keys.add("shop")
    assert _post(router, (name, f"{scheme} {key}")) == 200
    assert _post(router, (name, f"{scheme} x{key}")) == 401


def _post(router: Routed, *headers: tuple[str, str]) -> int:
    return CLIENT.post(f"{router.url}/{MODEL}/predict", content=BODY, headers=[*headers]).status_code


@pytest.mark.parametrize("other", ["Basic cHJveHk6c2VjcmV0", "Bearer of-the-proxy", "Digest x", "", "AWS4-HMAC-SHA256"])
def test_a_key_counts_whatever_a_proxy_puts_beside_it(router: Routed, other: str) -> None:
    """A right one is enough; several wrong ones are not."""
    with project_at(router.root):
        key = api_keys.add("shop")
    assert _post(router, ("authorization", other), ("x-api-key", key)) == 200
    assert _post(router, ("x-api-key", "old"), ("authorization", f"Bearer {key}")) == 200
    assert _post(router, ("authorization", other), ("authorization", f"Bearer {key}")) == 200
    assert _post(router, ("authorization", other), ("x-api-key", "old")) == 401
    assert _post(router, *[("x-api-key", f"{n}") for n in range(50)]) == 401


CLOSED = ["/", "/status", "/metrics", "/openapi.json", "/nothing", f"/{MODEL}/live", f"/{MODEL}/schema", "/a/b/c"]
CLOSED += [f"/{MODEL}/predict", "/nothing/explain", "/operator/a/b/predict", "/v2"]  # by GET, which these do not take


@pytest.mark.parametrize("path", CLOSED)
def test_beside_keys_every_page_needs_one(router: Routed, path: str) -> None:
    """Who is live, how much is asked, what a model takes: told to who has a key, and to the operator; not to probes."""
    expected = router.get(path).status_code
    with project_at(router.root):
        key = api_keys.add("shop")
    refused = router.get(path)
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, 'Bearer realm="Evergreen"')
    assert MODEL not in refused.text
    assert CLIENT.get(f"{router.url}{path}", headers={"x-api-key": key}).status_code == expected
    operator = {"authorization": f"Bearer {router.token()}"}
    assert CLIENT.get(f"{router.url}{path}", headers=operator).status_code == expected
    assert router.get("/healthz").status_code == router.get("/readyz").status_code == 200


@pytest.mark.parametrize("path", ["/status/", "/", "/reports/x.html"])
def test_a_browser_is_asked_for_a_password_beside_keys(router: Routed, path: str) -> None:
    """It can send no other header: the key is the password, of any name. It is taken for pages only."""
    html = {"accept": "text/html"}
    with project_at(router.root):
        key = api_keys.add("shop")
    refused = CLIENT.get(f"{router.url}{path}", headers=html)
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, 'Basic realm="Evergreen"')
    assert CLIENT.get(f"{router.url}{path}", headers=html, auth=("anybody", key)).status_code in (200, 307, 404)
    assert CLIENT.get(f"{router.url}{path}", headers=html, auth=(key, "anybody")).status_code == 401
    assert CLIENT.post(f"{router.url}/{MODEL}/predict", content=BODY, auth=("anybody", key)).status_code == 401


def test_those_who_run_it_are_admitted_beside_keys(router: Routed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rollout, and `evergreen load`, by the operator's token; it is made again where its file is lost."""
    monkeypatch.setenv("EVERGREEN_PORT", str(router.port))
    with project_at(router.root), router_client.RouterClient(patience=10) as operator:
        api_keys.add("shop")
        assert operator.status(MODEL)[1].answers == router.candidate
        shutil.rmtree(router.root / "var" / "run")
        assert operator.status(MODEL)[1].answers == router.candidate
        assert operator.predict(MODEL, router.candidate, [ROW]).status == 200
        assert load_tool.live_releases() == {MODEL: router.candidate}
        assert _post(router, *load_tool.authorization().items()) == 200


# ── clients of many kinds ─────────────────────────────────────────────────────────────────────────


def _sent(router: Routed, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", router.port), timeout=20) as client:
        client.sendall(request)
        return b"".join(iter(lambda: client.recv(65536), b""))


def _packed(*members: bytes) -> bytes:
    return b"".join(gzip.compress(member) for member in members)


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip"])
def test_a_compressed_body_is_answered_as_it_was_meant(router: Routed, encoding: str) -> None:
    """By gzip, in one member or in several."""
    plain = router.post().json()["predictions"][0]["probabilities"]
    for body in (_packed(BODY), _packed(BODY[:10], BODY[10:])):
        answer = router.post(body, content_encoding=encoding)
        assert answer.json()["predictions"][0]["probabilities"] == plain
    assert router.post(BODY, content_encoding="identity").status_code == 200


@pytest.mark.parametrize(
    ("body", "encoding", "status", "said"),
    [
        (lambda: BODY, "br", 415, "a body in 'br' cannot be read, but gzip, identity can"),
        (lambda: BODY, "gzip, gzip", 415, "a body in 'gzip, gzip' cannot be read"),
        (lambda: BODY, "gzip", 400, "the body is no gzip: Not a gzipped file"),
        (lambda: b"", "gzip", 400, "the body is no gzip: it is empty"),
        (lambda: _packed(BODY)[:-9], "gzip", 400, "the body is gzip that was cut off"),
        (lambda: _packed(BODY) + b"more", "gzip", 400, "the body is no gzip"),
        (lambda: _packed(b" " * 5_000_001), "gzip", 413, "the body is larger than 5000000 bytes (serving.max_bytes)"),
        (
            lambda: _packed(*[b" " * 1_000_000] * 6),
            "gzip",
            413,
            "the body is larger than 5000000 bytes (serving.max_bytes)",
        ),
        (
            lambda: _packed(b"\x00" * 400_000_000),
            "gzip",
            413,
            "the body is larger than 5000000 bytes (serving.max_bytes)",
        ),
    ],
    ids=["brotli", "twice", "plain", "empty", "cut off", "more", "too large", "members", "bomb"],
)
def test_a_body_in_a_form_that_cannot_be_read_is_told(
    router: Routed, body: Callable[[], bytes], encoding: str, status: int, said: str
) -> None:
    """What it is, and what can be read; a small one that holds a very large one is not unpacked."""
    answer = router.post(body(), content_encoding=encoding)
    assert answer.status_code == status
    assert answer.json()["error"].startswith(said)
    if status == 415:
        assert answer.headers["accept-encoding"] == "gzip, identity"


def test_pages_of_other_sites_may_not_ask_unless_a_setting_says_so(router: Routed) -> None:
    """A browser is told nothing of who may, and so lets none."""
    answer = router.post(origin="https://shop.example")
    assert answer.status_code == 200
    preflight = {"origin": "https://shop.example", "access-control-request-method": "POST"}
    asked = CLIENT.options(f"{router.url}/{MODEL}/predict", headers=preflight)
    assert (asked.status_code, asked.headers["allow"]) == (405, "POST")
    assert not [name for name in (*answer.headers, *asked.headers) if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("allowed", "origin", "answer"),
    [("*", "null", b"*"), ("HTTPS://A.example", "https://a.example", b"https://a.example")],
)
def test_origins_are_compared_as_browsers_write_them(allowed: str, origin: str, answer: bytes) -> None:
    """`*` is each of them, as also a page without one."""
    assert dict(Origins(allowed).headers(origin))[b"access-control-allow-origin"] == answer


def test_an_origin_that_is_none_is_told() -> None:
    """Where the setting is read."""
    with pytest.raises(Mistake, match=r"EVERGREEN_ORIGINS: 'shop\.example' is no origin"):
        Origins("shop.example")


PROXIES = {
    "haproxy's check": (b"OPTIONS / HTTP/1.0\r\n\r\n", b"204"),
    "OPTIONS *": (b"OPTIONS * HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", b"204"),
    "a probe by HEAD": (b"HEAD /healthz HTTP/1.0\r\n\r\n", b"200"),
    "nginx": (b"POST /%b/predict HTTP/1.0\r\nhost: up\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b", b"200"),
    "a proxy's form": (
        b"POST http://x/%b/predict HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b",
        b"200",
    ),
    "a slash more": (
        b"POST /%b/predict/?a=b HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b",
        b"200",
    ),
    "curl -d": (
        b"POST /%b/predict HTTP/1.0\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: %d\r\n\r\n%b",
        b"200",
    ),
}


@pytest.mark.parametrize("who", PROXIES)
def test_clients_and_proxies_are_answered_as_they_ask(router: Routed, who: str) -> None:
    """Byte for byte as they send it."""
    request, status = PROXIES[who]
    if b"%b" in request:
        request %= (MODEL.encode(), len(BODY), BODY)
    answer = _sent(router, request)
    assert answer.split(b" ", 2)[1] == status, answer
    assert (b"predictions" in answer) == request.startswith(b"POST")


def test_what_is_no_http_is_answered_each_time_and_told_seldom(router: Routed) -> None:
    """Or anybody who reaches the port could fill the disk."""
    said = router.said()
    for garbage in (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"SSH-2.0-x\r\n\r\n", b"GET\r\n\r\n"):
        for _ in range(40):
            assert _sent(router, garbage).startswith(b"HTTP/1.1 400 ")
    assert router.said().removeprefix(said).count("\n") <= 1


def test_who_asks_whether_a_body_is_wanted_is_told_so(router: Routed) -> None:
    """`expect: 100-continue`, as curl sends with a large body: go on; or at once why not."""
    head = b"POST /%b/predict HTTP/1.1\r\nhost: x\r\nconnection: close\r\nexpect: 100-continue\r\n"
    head += b"content-length: %d\r\n\r\n"
    with socket.create_connection(("127.0.0.1", router.port), timeout=20) as client:
        client.sendall(head % (MODEL.encode(), len(BODY)))
        assert client.recv(1000).startswith(b"HTTP/1.1 100 ")
        client.sendall(BODY)
        assert b"".join(iter(lambda: client.recv(65536), b"")).startswith(b"HTTP/1.1 200 ")
    assert _sent(router, head % (MODEL.encode(), 5_000_001)).startswith(b"HTTP/1.1 413 ")
    with project_at(router.root):
        api_keys.add("shop")
    assert _sent(router, head % (MODEL.encode(), len(BODY))).startswith(b"HTTP/1.1 401 ")


def test_the_operator_asks_any_release_with_a_token_and_leaves_no_trace(router: Routed) -> None:
    """Neither in the log nor in the counters; the token is for its owner alone."""
    router.serve(router.candidate, "other0000000000")
    before, logged = router.releases(), len(router.logged())
    path = f"/operator/{MODEL}/other0000000000/predict"
    bearer = f"Bearer {router.token()}"
    said = router.post(path=path, authorization=bearer).raise_for_status().json()
    assert said["release"] == f"{MODEL}:other0000000000"
    assert said["version"] == "4"
    for given in ("", "Bearer x", f"Bearer {router.token()[:-1]}", router.token(), "Bearer é"):
        wrong = {"authorization": given.encode()}
        assert CLIENT.post(f"{router.url}{path}", content=BODY, headers=wrong).status_code == 401
    missing = router.post(path=f"/operator/{MODEL}/0000/predict", authorization=bearer)
    assert missing.status_code == 404
    assert "other0000000000" in missing.json()["error"]
    assert len(router.logged()) == logged
    after = router.releases()
    assert [after[name]["answered"] for name in before] == [before[name]["answered"] for name in before]
    assert (router.root / "var" / "run" / "router.token").stat().st_mode & 0o777 == 0o600


def test_what_was_posted_is_in_no_log_of_errors(router: Routed) -> None:
    """Neither the router's nor the replicas'."""
    router.post([{**ROW, "hour": "SECRET-4711"}])
    router.post(b'{"SECRET-4711', path=f"/{MODEL}/explain")
    router.post([ROW], path="/SECRET-4711/predict")
    said = router.said() + "".join(path.read_text() for path in (router.root / "var" / "log").rglob("*.log"))
    assert "SECRET-4711" not in said


def test_a_model_that_fails_on_a_row_answers_500_and_lives_on(router: Routed) -> None:
    """Not the end of its process, nor of the other requests."""
    router.serve("failing00000000")
    pids = router.releases()["failing00000000"]["pids"]
    with load(router.port, 4) as seen:
        seen.has_asked(20)
        failed = router.post([{**ROW, "dest": "LAX"}])
        seen.has_asked(20)
    assert failed.status_code == 500
    assert failed.json()["error"] == "the model fails on this request (ArithmeticError); nothing was predicted"
    assert seen.failures == []
    one = router.releases()["failing00000000"]
    assert (one["pids"], one["errors"]) == (pids, 1)


def test_overload_is_shed_at_once_and_what_is_answered_is_answered_soon(router: Routed) -> None:
    """503 with Retry-After for what is too much."""
    before = _so_far(router)
    with _limited(router, "max_waiting: 3"):
        router.serve("slow00000000000")
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda _: router.post(), range(20)))
    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) == {200, 503}
    assert statuses[200] >= 3
    shed = [answer for answer in answers if answer.status_code == 503]
    assert all(answer.headers["retry-after"] == "1" for answer in shed)
    assert "requests wait already" in shed[0].json()["error"]
    assert max(a.elapsed.total_seconds() for a in answers if a.status_code == 200) < 3
    assert router.get("/status").json()["shed"] >= statuses[503]
    until(lambda: _not_answered(router) == before + Counter(shed=statuses[503]), 10, "as many are counted as shed")


# ── what was not answered ─────────────────────────────────────────────────────────────────────────


def _not_answered(router: Routed) -> Counter[str]:
    """Kind → how many, over all days."""
    total: Counter[str] = Counter()
    for said in _days(router).values():
        total.update(said)
    return total


def _so_far(router: Routed) -> Counter[str]:
    """The same, once all of it is written down."""
    time.sleep(0.5)
    return _not_answered(router)


def _days(router: Routed) -> error_counts.Days:
    with project_at(router.root):
        return error_counts.read(MODEL)


def test_what_was_not_answered_is_counted_by_its_kind(router: Routed) -> None:
    """Refused, as it was wrong; failed, as a release died over it or nobody serves. Answers and pages are neither."""
    before = _so_far(router)
    assert router.post([{**ROW, "hour": 99}]).status_code == 400
    assert router.post(b"{").status_code == 400
    assert router.post(b"x" * 5_000_001).status_code == 413
    router.serve("poison000000000")
    assert router.post([{**ROW, "dest": "POISON"}]).status_code == 503
    router.serve("failing00000000")
    assert router.post([{**ROW, "dest": "LAX"}]).status_code == 500
    router.serve(None)
    assert router.post().status_code == 503
    router.serve(router.candidate)
    assert router.post().status_code == 200
    assert router.get(f"/{MODEL}/predict").status_code == 405
    assert router.post(path="/nobody/predict").status_code == 404
    assert router.post(b"{", path=f"/{MODEL}/explain").status_code == 400
    expected = before + Counter(refused=3, failed=3)
    until(lambda: _not_answered(router).total() >= expected.total(), 10)
    until(lambda: _not_answered(router) == expected)


@pytest.mark.slow
def test_counts_go_on_after_an_end_and_after_a_kill(router: Routed) -> None:
    """One that ends writes down everything; one that is killed loses what it had not written down yet, and no more."""
    before = _so_far(router)
    assert router.post(b"{").status_code == 400
    router.stop()  # sooner than it would write
    assert _not_answered(router) == before + Counter(refused=1)
    router.start()
    router.serve(router.candidate)
    assert router.post(b"{").status_code == 400
    until(lambda: _not_answered(router) == before + Counter(refused=2))
    router.stop(signal.SIGKILL)
    assert _not_answered(router) == before + Counter(refused=2)
    router.start()
    router.serve(router.candidate)
    assert router.post(b"{").status_code == 400
    until(lambda: _not_answered(router) == before + Counter(refused=3))


def test_a_file_of_counts_that_is_torn_costs_only_what_it_held(router: Routed) -> None:
    """It is told and set aside, and counting goes on."""
    with project_at(router.root):
        path = paths.error_counts(MODEL)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("[")
        assert router.post(b"{").status_code == 400
        until(lambda: "unanswered.json is torn" in router.said(), 10)
        until(lambda: _not_answered(router) == Counter(refused=1), 10)


@pytest.mark.parametrize("torn", [b"", b'{"live": {"cand', b"\0" * 40])
def test_a_router_that_starts_on_a_torn_file_serves_what_went_live_last(router: Routed, torn: bytes) -> None:
    """A power cut took what was just written: the journal of rollouts knows who served."""
    with project_at(router.root):
        rollouts.note(MODEL, rollouts.ReleaseRef(router.candidate, 3, "2026-11-21T00:00:00Z"), "live")
        router.stop()
        paths.desired_state(MODEL).write_bytes(torn)
        router.start()
        until(lambda: router.post().status_code == 200, 60)
        assert f"{MODEL}.json is torn" in router.said()


@pytest.mark.parametrize(("zone", "hours"), [("Etc/GMT-14", 14), ("Etc/GMT+12", -12)])
def test_a_count_is_of_the_day_of_the_models_zone(router: Routed, zone: str, hours: int) -> None:
    """As the answers are that it stands beside."""
    time.sleep(0.5)  # all that was counted is written down
    before = _days(router)
    with _edited_params(router, "America/New_York", zone):
        assert router.post(b"{").status_code == 400
        day = (datetime.now(UTC) + timedelta(hours=hours)).date().isoformat()
        until(lambda: _days(router) != before, 10)
    assert _days(router)[day]["refused"] == before.get(day, {"refused": 0})["refused"] + 1


# ── canaries ──────────────────────────────────────────────────────────────────────────────────────


def test_a_canary_gets_its_share_and_the_same_key_the_same_release(router: Routed) -> None:
    """By key where one is given, by chance elsewhere; the share is as near to what was said as chance allows."""
    router.serve(router.candidate, "other0000000000", canary="other0000000000", share=0.3)
    assert router.releases()["other0000000000"]["role"] == "canary"
    with httpx.Client(base_url=router.url) as client:

        def who(key: str) -> str:
            headers = {"evergreen-key": key} if key else {}
            answer = client.post(f"/{MODEL}/predict", content=BODY, headers=headers)
            return answer.headers["evergreen-release"].partition(":")[2]

        by_key = {f"customer-{n}": who(f"customer-{n}") for n in range(200)}
        assert {key: who(key) for key in list(by_key)[:60]} == dict(list(by_key.items())[:60])
        by_chance = Counter(who("") for _ in range(200))
    low, high = binom.interval(0.9999, 200, 0.3)
    for seen in (Counter(by_key.values()), by_chance):
        assert low <= seen["other0000000000"] <= high
        assert seen.total() == 200
    expected = {
        key: int.from_bytes(hashlib.blake2b(f"other0000000000/{key}".encode(), digest_size=7).digest()) / 2**56 < 0.3
        for key in by_key
    }
    assert {key: name == "other0000000000" for key, name in by_key.items()} == expected


def test_a_larger_share_takes_nobody_back(router: Routed) -> None:
    """Who was the canary's stays the canary's; who asks without a key is of no side."""
    seen, keys = [], [str(number) for number in range(40)]
    for share in (0.2, 0.6, 1.0):
        router.serve(router.candidate, "other0000000000", canary="other0000000000", share=share)
        with httpx.Client(base_url=router.url) as client:
            asked = {
                key: client.post(f"/{MODEL}/predict", content=BODY, headers={"evergreen-key": key}) for key in keys
            }
        others = [key for key in keys if asked[key].headers["evergreen-release"].endswith("other0000000000")]
        seen.append(set(others))
    assert seen[0] < seen[1] < seen[2]
    assert len(seen[2]) == 40


def test_a_canary_that_fails_costs_nobody_an_answer(router: Routed) -> None:
    """Who serves answers instead; the failure is the canary's."""
    for name, dest, counted in (("failing00000000", "LAX", (1, 1, 0)), ("poison000000000", "POISON", (1, 0, 1))):
        router.serve(router.candidate, name, canary=name, share=1.0)
        answer = router.post([{**ROW, "dest": dest}])
        assert (answer.status_code, answer.headers["evergreen-release"]) == (200, f"{MODEL}:{router.candidate}")
        canary = router.releases()[name]
        assert (canary["errors"], canary["failed_alone"], canary["late"]) == counted


def test_what_a_canary_refuses_is_asked_of_who_serves(router: Routed) -> None:
    """Which refuses a client's mistake as well; what it takes, the canary has failed alone."""
    router.serve(router.candidate, "narrow000000000", canary="narrow000000000", share=1.0)
    answer = router.post([{**ROW, "dest": "LAX"}])
    assert answer.headers["evergreen-release"] == f"{MODEL}:{router.candidate}"
    assert router.post([{"dest": "LAX"}]).status_code == 400
    narrow = router.releases()["narrow000000000"]
    assert (narrow["refused"], narrow["failed_alone"]) == (2, 1)


# ── the Open Inference Protocol ───────────────────────────────────────────────────────────────────

V2 = f"/v2/models/{MODEL}"
INPUTS = [
    {"name": name, "shape": [1], "datatype": "BYTES" if isinstance(value, str) else "INT64", "data": [value]}
    for name, value in ROW.items()
]


def infer(router: Routed, path: str = f"{V2}/infer", inputs: Any = INPUTS, **headers: str) -> httpx.Response:
    """Post tensors."""
    return router.post(json.dumps({"inputs": inputs}).encode(), path, **headers)


def outputs(answer: httpx.Response) -> dict[str, Any]:
    """Output → its data."""
    assert answer.status_code == 200, answer.text
    return {one["name"]: one["data"] for one in answer.json()["outputs"]}


def test_tensors_are_answered_as_rows_are_and_logged_with_the_ids_that_were_answered(router: Routed) -> None:
    """To the bit; production's traffic, however it was asked."""
    predicted, logged = router.post([ROW]).json()["predictions"][0], len(router.logged())
    counted = router.releases()[router.candidate]["answered"], _predicted(router)
    answer = infer(router, evergreen_key="customer", x_request_id="mine-8")
    found = outputs(answer)
    assert found["probability"] == [predicted["probability"]]
    assert found["probabilities"] == list(predicted["probabilities"].values())
    assert answer.headers["evergreen-release"] == f"{MODEL}:{router.candidate}"
    assert len(router.logged()) == logged + 1
    (line,) = [line for line in router.logged() if line["ids"] == found["id"]]  # the log of another process may be last
    assert (line["key"], line["request"][:7]) == ("customer", "mine-8~")
    assert line["rows"][0] == router.logged()[logged - 1]["rows"][0]
    until(
        lambda: (
            (router.releases()[router.candidate]["answered"], _predicted(router)) == (counted[0] + 1, counted[1] + 1)
        ),
        10,
    )


def test_bytes_go_through_the_router_and_come_back(router: Routed) -> None:
    """Behind the JSON, whose length a header says; compressed too."""
    hours = struct.pack("<2q", 6, 17)
    heads = [{**one, "shape": [2], "data": one["data"] * 2} for one in INPUTS if one["name"] != "hour"]
    heads.append({"name": "hour", "shape": [2], "datatype": "INT64", "parameters": {"binary_data_size": len(hours)}})
    wanted = {"inputs": heads, "outputs": [{"name": "probability", "parameters": {"binary_data": True}}]}
    text = json.dumps(wanted).encode()
    expected = [one["probability"] for one in router.post([{**ROW, "hour": 6}, ROW]).json()["predictions"]]
    length = {"inference_header_content_length": str(len(text))}
    for body, more in ((text + hours, {}), (gzip.compress(text + hours), {"content_encoding": "gzip"})):
        answer = router.post(body, f"{V2}/infer", **length, **more)
        assert answer.status_code == 200, answer.text
        at = int(answer.headers["inference-header-content-length"])
        assert answer.headers["content-type"] == "application/octet-stream"
        assert list(struct.unpack("<2d", answer.content[at:])) == expected


def test_the_pages_of_the_protocol_say_what_is_there(router: Routed) -> None:
    """Health, what is spoken, what the model takes and gives, by its version too."""
    assert router.get("/v2").json() == {"name": "evergreen", "version": "1", "extensions": ["binary_tensor_data"]}
    assert router.get("/v2/health/live").json() == {"live": True}
    assert router.get("/v2/health/ready").json() == {"ready": True}
    described = router.get(V2).json()
    assert (described["name"], described["versions"], described["platform"]) == (MODEL, ["3"], "evergreen_release")
    assert {one["name"]: one["datatype"] for one in described["inputs"]}["carrier"] == "BYTES"
    assert router.get(f"{V2}/versions/3").json() == described
    assert router.get(f"{V2}/versions/{router.candidate}").json() == described
    for path in (f"{V2}/ready", f"{V2}/versions/3/ready"):
        assert router.get(path).json() == {"name": MODEL, "ready": True}
    assert CLIENT.head(f"{router.url}{V2}").content == b""


@pytest.mark.parametrize(
    ("method", "path", "status", "told"),
    [
        ("GET", f"{V2}/infer", 405, "this path takes POST"),
        ("POST", V2, 405, "this path takes GET, HEAD"),
        ("POST", "/v2/health/live", 405, "this path takes GET, HEAD"),
        ("POST", f"{V2}/versions/9/infer", 404, "no version '9' that answers, but version 3 ("),
        ("GET", f"{V2}/versions/9", 404, "no version '9' that answers, but version 3 ("),
        ("GET", f"{V2}/versions/9/ready", 404, "no version '9' that answers, but version 3 ("),
        ("GET", "/v2/models/flight_delays", 404, f"did you mean '{MODEL}'?"),
        ("POST", "/v2/models/flight_delays/infer", 404, f"did you mean '{MODEL}'?"),
        ("GET", f"{V2}/nothing", 404, "paths: GET /v2 /v2/health/live"),
        ("POST", f"{V2}/version/3/infer", 404, "paths: GET /v2 /v2/health/live"),
        ("GET", "/v2/health/well", 404, "paths: GET /v2"),
        ("GET", "/v2/models", 404, "paths: GET /v2"),
    ],
)
def test_a_wrong_path_of_the_protocol_is_told(router: Routed, method: str, path: str, status: int, told: str) -> None:
    """As an error of the protocol: a text."""
    answer = CLIENT.request(method, f"{router.url}{path}", content=BODY if method == "POST" else None)
    assert (answer.status_code, told in answer.json()["error"]) == (status, True), answer.text


def test_a_bad_request_by_the_protocol_is_refused_and_counted(router: Routed) -> None:
    """By a text that names the tensor; too long a body as everywhere; a header that is no number."""
    before = router.releases()[router.candidate]["refused"]
    answer = infer(router, inputs=[{**INPUTS[0], "name": "carier"}, *INPUTS[1:]])
    assert answer.status_code == 400
    assert "carier: is not known; did you mean 'carrier'?; carrier: is missing" in answer.json()["error"]
    assert router.releases()[router.candidate]["refused"] == before + 1
    assert "must be a number" in infer(router, inference_header_content_length="x").json()["error"]
    assert router.post(b"x" * 5_000_001, f"{V2}/infer").status_code == 413


def test_the_protocol_needs_a_key_where_predictions_do(router: Routed) -> None:
    """But not its health, for probes."""
    with project_at(router.root):
        key = api_keys.add("shop")
        assert infer(router).status_code == router.get(V2).status_code == router.get("/v2").status_code == 401
        assert infer(router, authorization=f"Bearer {key}").status_code == 200
        assert router.get("/v2/health/live").status_code == router.get("/v2/health/ready").status_code == 200


def test_a_client_may_ask_the_live_release_or_the_canary_by_its_version(router: Routed) -> None:
    """No other one; and without a version the canary gets its share, as of rows."""
    router.serve(router.candidate, "other0000000000")
    assert infer(router, f"{V2}/versions/4/infer").status_code == 404
    router.serve(router.candidate, "other0000000000", canary="other0000000000", share=1.0)
    assert router.get(V2).json()["versions"] == ["3", "4"]
    for asked, name in (("/versions/3", router.candidate), ("/versions/4", "other0000000000"), ("", "other0000000000")):
        answer = infer(router, f"{V2}{asked}/infer")
        assert answer.headers["evergreen-release"] == f"{MODEL}:{name}"
        assert answer.json()["model_version"] == ("3" if name == router.candidate else "4")
    assert router.releases()["other0000000000"]["answered"] == 2


def test_a_canary_that_fails_on_tensors_costs_nobody_an_answer(router: Routed) -> None:
    """Unless its version was asked for: then that one answers, or none."""
    lax = [{**one, "data": ["LAX"]} if one["name"] == "dest" else one for one in INPUTS]
    router.serve(router.candidate, "failing00000000", canary="failing00000000", share=1.0)
    assert infer(router, inputs=lax).headers["evergreen-release"] == f"{MODEL}:{router.candidate}"
    assert router.releases()["failing00000000"]["failed_alone"] == 1
    failed = infer(router, f"{V2}/versions/4/infer", lax)
    assert (failed.status_code, "the model fails on this request" in failed.json()["error"]) == (500, True)


def test_a_release_of_before_the_protocol_says_so_and_answers_rows(router: Routed) -> None:
    """As a canary it gets none of the tensors; live it says what to do. It must never hang on them."""
    router.serve(router.candidate, "old000000000000", canary="old000000000000", share=1.0)
    assert infer(router).headers["evergreen-release"] == f"{MODEL}:{router.candidate}"
    assert router.post().headers["evergreen-release"] == f"{MODEL}:old000000000000"
    router.serve("old000000000000")
    for answer in (infer(router), router.get(V2)):
        assert answer.status_code == 404
        assert "was packaged before the Open Inference Protocol was spoken here" in answer.json()["error"]
    assert router.post().status_code == router.get("/openapi.json").status_code == 200
    assert router.releases()["old000000000000"]["errors"] == 0


@pytest.mark.long
def test_a_change_of_releases_fails_no_request_by_the_protocol(router: Routed) -> None:
    """Ten changes, with a canary each time, while six clients ask tensors as fast as they can."""
    body = json.dumps({"inputs": INPUTS}).encode()
    with load(router.port, body=body, path=f"{V2}/infer") as seen:
        for live, other in [(router.candidate, "other0000000000"), ("other0000000000", router.candidate)] * 5:
            router.serve(live, other, canary=other, share=0.3)
            seen.has_asked(300)
            router.serve(other)
            seen.has_asked(100)
    assert (seen.failures, set(seen.statuses)) == ([], {200})
    assert {name for _, name in seen.answers} == {router.candidate, "other0000000000"}
    assert len(seen.ids) == sum(seen.statuses.values())


# ── releases that come and go ─────────────────────────────────────────────────────────────────────


def test_a_release_is_changed_under_load_without_a_failed_request(router: Routed) -> None:
    """Back and forth, on old and new connections; each answer is of one of the two, and after the change of the new."""
    names = [router.candidate, "other0000000000"]
    with load(router.port) as seen:
        for n in range(6):
            seen.has_asked(30)
            router.serve(names[(n + 1) % 2])
            seen_at = time.monotonic()
            seen.has_asked(30)
            assert {who for asked, who in seen.answers if asked > seen_at} == {names[(n + 1) % 2]}
    assert seen.failures == []
    assert set(seen.statuses) == {200}
    assert seen.ids <= _logged_ids(router)


def _logged_ids(router: Routed) -> set[str]:
    return {name for line in router.logged() for name in line["ids"]}


def test_a_release_that_cannot_start_is_told_and_costs_nothing(router: Routed) -> None:
    """Its model file was changed: the live one stays live, and status says why."""
    with load(router.port, 4) as seen:
        router.want("broken000000000")
        until(lambda: router.releases().get("broken000000000", {}).get("state") == "failed", 60)
        broken = router.releases()["broken000000000"]
        assert "was changed after it was packaged" in broken["why"]
        assert broken["pids"] == []
        assert router.status()["answers"] == router.candidate
        assert router.status()["live"]["candidate"] == "broken000000000"
        assert router.get("/readyz").status_code == 200
        seen.has_asked(20)
        refused = router.post(path=f"/operator/{MODEL}/nothing/predict", authorization=f"Bearer {router.token()}")
        assert refused.status_code == 404
        router.serve(router.candidate)
    assert seen.failures == []
    assert {who for _, who in seen.answers} == {router.candidate}


def test_a_release_that_is_not_there_is_told(router: Routed) -> None:
    """Nobody has fetched it."""
    router.want(router.candidate, "missing00000000")
    until(lambda: router.releases().get("missing00000000", {}).get("state") == "failed", 60)
    assert "missing00000000" in router.releases()["missing00000000"]["why"]
    assert router.post().status_code == 200


def test_a_model_that_is_no_longer_wanted_is_ended(router: Routed) -> None:
    """No live one: 503 with Retry-After. No file: it is not served yet; a person takes it out, and puts it back."""
    pids = router.releases()[router.candidate]["pids"]
    router.serve(None)
    answer = router.post()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert answer.json() == {"error": f"{MODEL} has no release that is ready"}
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 20)
    router.serve(router.candidate)
    path = router.root / "var" / "serving" / f"{MODEL}.json"
    away = path.rename(path.with_suffix(".away"))
    until(lambda: "is not served yet" in router.post().text, 20)
    away.rename(path)  # as it was
    until(lambda: router.post().status_code == 200, 20)


def test_a_folder_that_somebody_removes_and_that_is_made_again_costs_no_request(router: Routed) -> None:
    """The journal of rollouts knows who serves; the watcher, which looks every few seconds, asks it."""
    with project_at(router.root):
        rollouts.note(MODEL, rollouts.ReleaseRef(router.candidate, 3, "2026-11-21T00:00:00Z"), "live")
        pids = router.releases()[router.candidate]["pids"]
        with load(router.port) as seen:
            shutil.rmtree(paths.desired_state(MODEL).parent)
            time.sleep(1)
            assert rollouts.read(MODEL).live
            time.sleep(1)
    assert set(seen.statuses) == {200}
    assert router.releases()[router.candidate]["pids"] == pids


NO_WISH = [
    *("{", "", "[]", "null", '{"live": null}', '{"live": "x", "beside": [], "canary": null}'),
    '{"live": {"candidate": "../x"}, "beside": [], "canary": null}',
    '{"live": null, "beside": [{}], "canary": null}',
    '{"live": null, "beside": [], "canary": {"candidate": "x", "share": 7}}',
]


@pytest.mark.parametrize("harm", NO_WISH)
def test_what_should_serve_is_unreadable_so_nothing_changes(router: Routed, harm: str) -> None:
    """It is told; another model's file is followed all the while, and this one again when it is mended."""
    folder = router.root / "var" / "serving"
    (folder / f"{MODEL}.json").write_text(harm)
    (folder / "another.json").write_text(json.dumps({"live": None, "beside": [], "canary": None}))
    until(lambda: "another" in router.get("/status").json()["models"], 20)
    assert router.post().status_code == 200
    until(lambda: f"{MODEL}.json cannot be read, so nothing changes" in router.said(), 10)
    (folder / "another.json").unlink()
    router.serve(router.candidate, "other0000000000")


def test_params_that_are_broken_change_nothing_and_keep_nothing_from_changing(router: Routed) -> None:
    """A person edits params.yaml while releases come and go."""
    with _edited_params(router, "serving:", "srving:"):
        until(lambda: "its numbers stay as they are" in router.said(), 20)
        router.serve("other0000000000")
        assert router.post().headers["evergreen-release"] == f"{MODEL}:other0000000000"


def test_params_that_are_broken_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks waits meanwhile; what is written next is read, also what could only not be read just now."""
    reads = []

    def read() -> None:
        reads.append([ParamsError("wrong"), OSError("too many open files"), ParamsError("wrong again")][len(reads)])
        raise reads[-1]

    monkeypatch.setattr(settings, "ROOT", tmp_path)
    monkeypatch.setattr(params, "load", read)
    for name in ("EVERGREEN_OPEN_PAGES", "EVERGREEN_ORIGINS"):
        monkeypatch.setenv(name, "")
    here = Reconciler()
    counts = []
    for text in ("models:", "models: {}"):
        (tmp_path / "params.yaml").write_text(text)
        for _ in range(3):
            here._current_params()
            counts.append(len(reads))
    assert counts == [1, 1, 1, 2, 3, 3]


def test_a_release_that_is_let_go_while_it_is_being_born_leaves_the_others_their_own_processes(router: Routed) -> None:
    """The process that forks is slow to answer; whose answer it was is not forgotten, and nobody else's is ended."""
    fork_server = _fork_server(router)
    fork_server.suspend()
    router.want(router.candidate, "other0000000000")
    until(lambda: "other0000000000" in router.releases(), 10)
    time.sleep(1)
    router.want(router.candidate)
    until(lambda: "other0000000000" not in router.releases(), 10)
    fork_server.resume()
    before = router.releases()[router.candidate]["pids"]
    router.serve(router.candidate, "slow00000000000")
    for name, one in router.releases().items():
        for pid in one["pids"]:
            assert Path(f"/proc/{pid}/fd/1").readlink().name == f"{MODEL}-{name}.log"
    router.serve(router.candidate)
    assert router.post().status_code == 200
    assert router.releases()[router.candidate]["pids"] == before
    until(lambda: len(fork_server.children()) == 1, 20, "the end of all replicas but one")


@are_weighed
def test_a_release_that_comes_up_gives_way_to_the_one_that_answers(router: Routed) -> None:
    """Until it is up; whoever comes up while nobody answers, or in the place of a dead one, is in a hurry."""
    assert session_nice(router.releases()[router.candidate]["pids"][0]) == 0
    fork_server = _fork_server(router)
    before = {one.pid for one in fork_server.children()}
    router.want(router.candidate, "slow00000000000")
    while not (fresh := {one.pid for one in fork_server.children()} - before):
        time.sleep(0.005)
    (born,) = fresh
    while session_nice(born) != priority.NICE:  # it leads no session of its own at first
        assert not router.releases()["slow00000000000"]["pids"], "it came up as nice as the one that answers"
        time.sleep(0.005)
    until(lambda: router.releases()["slow00000000000"]["pids"] == [born] and session_nice(born) == 0, 20)
    os.kill(born, signal.SIGKILL)
    until(lambda: router.releases()["slow00000000000"]["pids"] not in ([], [born]), 20)
    (again,) = router.releases()["slow00000000000"]["pids"]
    assert session_nice(again) == 0


def _fork_server(router: Routed) -> psutil.Process:
    """The process that forks replicas."""
    assert router.process
    children = psutil.Process(router.process.pid).children()
    (fork_server,) = [child for child in children if "serving/fork_server.py" in " ".join(child.cmdline())]
    return fork_server


# ── processes that die ────────────────────────────────────────────────────────────────────────────


def test_a_replica_that_is_killed_under_load_costs_no_request_and_no_line(router: Routed) -> None:
    """What it was asked is asked again; what was answered is in the log."""
    with load(router.port) as seen:
        for _ in range(4):
            seen.has_asked(20)
            killed = router.releases()[router.candidate]["pids"]
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
            until(lambda: set(router.releases()[router.candidate]["pids"]) - set(killed), 60)  # noqa: B023 - called here
        seen.has_asked(20)
    assert seen.failures == []
    assert set(seen.statuses) == {200}
    assert seen.ids <= _logged_ids(router)


def test_several_replicas_answer_for_one_release(router: Routed) -> None:
    """Each of them is asked, has a log and a voice of its own; one that is killed leaves the requests to the others."""
    with _limited(router, "replicas: 3"):
        router.serve("other0000000000")
        until(lambda: len(router.releases()["other0000000000"]["pids"]) == 3, 20)
        pids = router.releases()["other0000000000"]["pids"]
        voices = {Path(f"/proc/{pid}/fd/1").readlink().name.removeprefix(f"{MODEL}-other0000000000") for pid in pids}
        assert voices == {".log", ".2.log", ".3.log"}
        with load(router.port, 12) as seen:
            until(lambda: set(pids) <= _loggers(router, "other0000000000"), 20, "an answer of each replica")
            os.kill(pids[1], signal.SIGKILL)
            until(lambda: pids[1] not in (left := router.releases()["other0000000000"]["pids"]) and len(left) == 3, 20)
            seen.has_asked(30)
        assert seen.failures == []
        assert seen.ids <= _logged_ids(router)
        assert router.releases()["other0000000000"]["errors"] == 0
        router.want("broken000000000", "other0000000000")
        until(lambda: router.releases().get("broken000000000", {}).get("state") == "failed", 60)
        for _ in range(5):
            assert "was changed after it was packaged" in router.releases()["broken000000000"]["why"]
            time.sleep(0.2)


def _loggers(router: Routed, candidate: str) -> set[int]:
    """The processes that have written to a release's log."""
    incoming = router.root / "var" / "predictions" / MODEL / "incoming"
    return {int(path.name.split(".")[1]) for path in incoming.glob(f"*/{candidate}.*.jsonl")}


@contextmanager
def _without_a_replica(router: Routed) -> Iterator[psutil.Process]:
    """The live replica is killed; the process that forks another one is stopped until somebody resumes it."""
    fork_server = _fork_server(router)
    fork_server.suspend()
    try:
        os.kill(router.releases()[router.candidate]["pids"][0], signal.SIGKILL)
        until(lambda: not router.releases()[router.candidate]["pids"], 10)
        yield fork_server
    finally:
        fork_server.resume()


def test_what_waits_for_a_replica_to_come_is_shed_too_when_it_is_too_much(router: Routed) -> None:
    """There is none for a second: as many as may wait are answered late, the others are told at once."""
    with _limited(router, "max_waiting: 5"), _without_a_replica(router) as fork_server, ThreadPoolExecutor(20) as pool:
        answers = [pool.submit(router.post) for _ in range(20)]
        until(lambda: sum(answer.done() for answer in answers) == 15, 10, "the refusals")
        fork_server.resume()
        statuses = Counter(answer.result().status_code for answer in answers)
    assert statuses == {200: 5, 503: 15}


def test_what_waits_for_a_replica_is_answered_though_its_release_is_let_go(router: Routed) -> None:
    """The replica was killed, and just then another release goes live."""
    router.serve(router.candidate, "other0000000000")
    with _without_a_replica(router) as fork_server, ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(router.post) for _ in range(3)]
        until(lambda: router.releases()[router.candidate]["waiting"] == 3, 10)
        router.want("other0000000000")
        until(lambda: router.status()["answers"] == "other0000000000", 10)
        fork_server.resume()
        assert [answer.result().status_code for answer in answers] == [200] * 3


def test_a_replica_that_hangs_is_replaced(router: Routed) -> None:
    """It waits for what never comes: what it was asked is answered by another after the time limit, here 4 s."""
    with _limited(router, "timeout_s: 4"):
        router.serve("hangs0000000000")
        (pid,) = router.releases()["hangs0000000000"]["pids"]
        assert router.post([{**ROW, "dest": "HANG"}]).status_code == 200
        assert router.releases()["hangs0000000000"]["pids"] != [pid]
        assert router.releases()["hangs0000000000"]["stalled"] == 1


@pytest.mark.parametrize("stopped", ["live", "live, alone", "both"])
def test_a_live_replica_that_is_stopped_costs_no_request(router: Routed, stopped: str) -> None:
    """SIGSTOP: the former release, which is warm, answers meanwhile; the replica is ended and replaced."""
    router.serve(router.candidate, *([] if "alone" in stopped else ["other0000000000"]), role="former")
    before = router.releases()[router.candidate]
    (pid,) = before["pids"]
    with load(router.port) as seen:
        seen.has_asked(20)
        if stopped == "both":
            os.kill(router.releases()["other0000000000"]["pids"][0], signal.SIGSTOP)
        os.kill(pid, signal.SIGSTOP)
        until(lambda: router.releases()[router.candidate]["pids"] not in ([], [pid]), 30, "another replica")
        begin = time.monotonic()
        seen.has_asked(20)
    assert seen.failures == []
    assert {who for asked, who in seen.answers if asked > begin} == {router.candidate}
    assert ("other0000000000" in {who for _, who in seen.answers}) == (stopped == "live")
    assert seen.ids <= _logged_ids(router)
    after = router.releases()[router.candidate]
    assert (after["stalled"] - before["stalled"], after["errors"] - before["errors"]) == (1, 0)
    until(lambda: not Path(f"/proc/{pid}").exists(), 10)


def test_a_canary_that_is_stopped_is_replaced_and_its_requests_are_answered(router: Routed) -> None:
    """By who is live; it counts as late, which may be the machine's doing, and is said apart."""
    router.serve(router.candidate, "other0000000000", canary="other0000000000", share=1.0)
    (pid,) = router.releases()["other0000000000"]["pids"]
    os.kill(pid, signal.SIGSTOP)
    answer = router.post()
    assert (answer.status_code, answer.headers["evergreen-release"]) == (200, f"{MODEL}:{router.candidate}")
    until(lambda: router.releases()["other0000000000"]["pids"] not in ([], [pid]), 30, "another replica")
    canary = router.releases()["other0000000000"]
    assert (canary["stalled"], canary["errors"], canary["late"], canary["failed_alone"]) == (1, 1, 1, 0)
    assert router.post().headers["evergreen-release"] == f"{MODEL}:other0000000000"


def test_a_long_request_is_waited_for(router: Routed) -> None:
    """A replica that computes for seconds is slow, and alive: the former release does not stand in, nobody is ended."""
    router.serve("busy00000000000", router.candidate, role="former")
    pids = router.releases()["busy00000000000"]["pids"]
    answer = router.post([ROW] * 1000)
    assert (answer.status_code, answer.headers["evergreen-release"]) == (200, f"{MODEL}:busy00000000000")
    assert (router.releases()["busy00000000000"]["pids"], router.releases()["busy00000000000"]["stalled"]) == (pids, 0)


def test_a_model_that_cannot_serve_any_more_says_so_at_once_and_serves_again_when_it_is_mended(router: Routed) -> None:
    """Its file is gone, then its replica dies: 503 with the reason, not half a minute of waiting. Or who is warm."""
    src = router.src(router.variant("mended000000000"))
    for beside in ((), ("other0000000000",)):
        router.serve("mended000000000", *beside, role="former")
        src.rename(src.with_name("away"))
        os.kill(router.releases()["mended000000000"]["pids"][0], signal.SIGKILL)
        until(lambda: router.releases()["mended000000000"]["state"] == "failed", 30)
        begin = time.monotonic()
        answer = router.post()
        if beside:
            assert answer.headers["evergreen-release"] == f"{MODEL}:other0000000000"
            assert router.status()["answers"] == "other0000000000"
            assert router.get("/readyz").status_code == 200
        else:
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
            assert "mended000000000 has no replica: " in answer.json()["error"]
            assert "\n" not in answer.json()["error"]
            assert router.get("/readyz").json()["waits_for"] == [MODEL]
            assert time.monotonic() - begin < 15, "half of serving.timeout_s: it did not wait"
        src.with_name("away").rename(src)
        until(lambda: router.post().headers.get("evergreen-release") == f"{MODEL}:mended000000000", 60)


def test_what_replicas_are_forked_from_hangs_and_a_replica_dies(router: Routed) -> None:
    """The replica is started by itself, and its requests are answered; the process is replaced."""
    fork_server = _fork_server(router)
    fork_server.suspend()
    (pid,) = router.releases()[router.candidate]["pids"]
    with load(router.port, 2) as seen:
        seen.has_asked(4)
        os.kill(pid, signal.SIGKILL)
        until(lambda: router.releases()[router.candidate]["pids"] not in ([], [pid]), 60, "another replica")
        seen.has_asked(4)
    assert seen.failures == []
    until(lambda: not fork_server.is_running() or fork_server.status() == "zombie", 20)
    router.serve(router.candidate, "other0000000000")
    assert _fork_server(router).pid != fork_server.pid


def test_a_request_that_kills_whoever_answers_it_takes_no_other_along(router: Routed) -> None:
    """It is given up after three replicas; the others are answered all the while, late at worst."""
    router.serve("poison000000000")
    with load(router.port) as seen:
        seen.has_asked(10)
        poisoned = router.post([{**ROW, "dest": "POISON"}])
        seen.has_asked(20)
    assert poisoned.status_code == 503
    assert "3 replicas died over the request" in poisoned.json()["error"]
    assert seen.failures == []
    assert seen.ids <= _logged_ids(router)
    assert "POISON" not in router.said()


@pytest.mark.slow
def test_a_router_that_is_killed_serves_the_same_when_it_is_started_again(router: Routed) -> None:
    """Its replicas end by themselves; what was answered before is in the log; counters begin anew."""
    router.serve(router.candidate, "other0000000000", canary="other0000000000", share=0.5)
    pids = [pid for one in router.releases().values() for pid in one["pids"]]
    token = router.token()
    with load(router.port, 4) as seen:
        seen.has_asked(40)
        router.stop(signal.SIGKILL)
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 20, "the end of its replicas")
        assert seen.ids <= _logged_ids(router)
        router.start()
        until(lambda: {one["state"] for one in router.releases().values()} == {"ready"}, 60)
        seen.has_asked(20)
    assert seen.failures, "clients saw that it was gone"
    told = {failure for failure in seen.failures if failure[0].isdigit()}
    assert all("has no release that is ready" in failure for failure in told), "and soon after, that it begins"
    assert router.status()["canary"] == {"candidate": "other0000000000", "share": 0.5}
    assert router.status()["answers"] == router.candidate
    assert seen.ids <= _logged_ids(router)
    assert router.token() != token


def test_a_router_that_is_told_to_end_answers_what_it_was_asked_first(router: Routed) -> None:
    """SIGTERM: every request that was taken is answered."""
    router.serve("slow00000000000")
    answers: list[int] = []
    threads = [threading.Thread(target=lambda: answers.append(router.post().status_code)) for _ in range(5)]
    for thread in threads:
        thread.start()
    until(lambda: router.releases()["slow00000000000"]["state"] == "ready", 10)
    time.sleep(0.2)
    router.stop()
    for thread in threads:
        thread.join()
    assert answers == [200] * 5


# ── with other settings ───────────────────────────────────────────────────────────────────────────


def test_a_page_may_be_opened_beside_keys(configured: Routed) -> None:
    """By a setting, and no other page with it; one that does not exist is told."""
    with project_at(configured.root):
        api_keys.add("metered")
        statuses = {path: configured.get(path).status_code for path in ("/metrics", "/openapi.json", "/status", "/")}
    assert statuses == {"/metrics": 200, "/openapi.json": 200, "/status": 401, "/": 401}
    wrong = "EVERGREEN_OPEN_PAGES: there is no page 'metric'; did you mean 'metrics'?"
    with pytest.raises(Mistake, match=re.escape(wrong)):
        Admission("metric")


def test_pages_of_the_sites_of_a_setting_may_ask(configured: Routed) -> None:
    """Also before they have a key, and with an error in the answer."""
    project = configured
    with project_at(project.root):
        api_keys.add("shop")
        preflight = {"origin": "https://shop.example", "access-control-request-method": "POST"}
        asked = CLIENT.options(f"{project.url}/{MODEL}/predict", headers=preflight)
        refused = project.post(origin="http://localhost:5173")
    _forget_keys(project)
    assert asked.status_code == 204
    assert asked.headers["access-control-allow-origin"] == "https://shop.example"
    assert asked.headers["access-control-allow-methods"] == "POST"
    assert "authorization" in asked.headers["access-control-allow-headers"]
    assert asked.headers["vary"] == "origin"
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "http://localhost:5173"
    assert "evergreen-release" in refused.headers["access-control-expose-headers"]
    other = project.post(origin="https://shop.example.evil.example")
    assert (other.status_code, other.headers["vary"]) == (200, "origin")
    assert "access-control-allow-origin" not in other.headers


def test_what_a_canary_answers_too_late_is_not_in_the_log(configured: Routed) -> None:
    """Who serves has answered meanwhile, and what was answered is what counts."""
    router = configured
    router.serve(router.candidate, "slow00000000000", canary="slow00000000000", share=1.0)
    answer = router.post(x_request_id="too-late")
    assert answer.headers["evergreen-release"] == f"{MODEL}:{router.candidate}"
    time.sleep(1)
    (line,) = [line for line in router.logged() if line["request"].startswith("too-late")]
    assert line["release"] == router.candidate
    assert line["ids"] == [one["id"] for one in answer.json()["predictions"]]


@pytest.mark.parametrize("text", ["", "5", "- a", "models:", "models: 5", "models: [a", "others: {a: 1}"])
def test_a_params_yaml_that_is_being_edited_names_no_models(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unknown path is answered 404 as ever."""
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    (tmp_path / "params.yaml").write_text(text)
    assert routing._configured() == ()
