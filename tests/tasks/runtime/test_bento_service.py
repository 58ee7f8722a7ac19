"""The packaged service, served by `bentoml serve` as production does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
from contextlib import contextmanager

import httpx
import pytest

from tasks.ground import files, settings
from tasks.ground.http import free_port, wait_until
from tasks.release.package import package
from tests.release_root import make_project, project_at

ROW = {"carrier": "UA", "origin": "EWR", "dest": "IAH", "weekday": 1, "hour": 17, "minute": 30, "distance": 1400}
BENTOML = os.path.join(os.path.dirname(sys.executable), "bentoml")  # noqa: PTH118, PTH120  # .resolve() would leave the venv


@pytest.fixture(scope="module")
def bento(tmp_path_factory):
    """The Bento of a small flight_delay."""
    root = tmp_path_factory.mktemp("served")
    make_project(root, "flight_delay")
    with project_at(root):
        package.package("flight_delay")
        yield package.ensure_bento("flight_delay")


@contextmanager
def serving(what: str, log):
    """`bentoml serve` of a tag or folder, from a folder that has nothing to do with the project; gives the address."""
    port = free_port()
    environment = {**settings.environment(), **os.environ}
    for name in ("PYTHONPATH", "EVERGREEN_ROOT", "BENTOML_HOST"):
        environment.pop(name, None)
    with log.open("wb") as stream:
        server = subprocess.Popen(
            [BENTOML, "serve", what, "--port", str(port)],
            stdout=stream, stderr=subprocess.STDOUT, env=environment, cwd=log.parent, start_new_session=True,
        )  # fmt: skip
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def is_ready(address: str) -> bool:
    """Whether the service says that it is."""
    try:
        return httpx.get(f"{address}/readyz", timeout=1).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """Where the server writes."""
    return tmp_path_factory.mktemp("log") / "serve.log"


@pytest.fixture(scope="module")
def client(bento, log):
    """A client of the served release."""
    with serving(f"{bento.parent.name}:{bento.name}", log) as address:
        assert wait_until(lambda: is_ready(address), 60), log.read_text()
        with httpx.Client(base_url=address, timeout=10) as client:
            yield client


def post(client, body) -> httpx.Response:
    """Post a body as it is (str), or rows."""
    text = body if isinstance(body, str) else json.dumps({"rows": body})
    return client.post("/predict", content=text, headers={"content-type": "application/json"})


def test_an_answer_says_what_was_predicted_by_which_release_and_under_which_id(client, bento):
    """Model, version and release name the candidate; every row has an id of its own."""
    answer = post(client, [ROW, {**ROW, "hour": 6, "temp": None}]).raise_for_status().json()
    assert (answer["model"], answer["version"]) == ("flight_delay", bento.name)
    assert answer["release"] == f"flight_delay:{bento.name}"
    first, second = answer["predictions"]
    assert len(first["id"]) == 32
    assert first["id"] < second["id"] or first["id"][:12] == second["id"][:12]
    assert first["prediction"] in (0, 1)
    assert first["probabilities"]["1"] == first["probability"] != second["probability"]
    assert sum(first["probabilities"].values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("body", "row", "field", "problem"),
    [
        ("", None, None, "the body is not JSON"),
        ("carrier=UA", None, None, "the body is not JSON"),
        ('{"row": []}', None, "row", "did you mean 'rows'"),
        ([ROW] * 1001, None, "rows", "holds more than 1000 rows"),
        ([ROW, ROW, {**ROW, "carrier": 7}], 2, "carrier", "valid string"),
        ([{**ROW, "temp": float("nan")}], 0, "temp", "finite number"),
    ],
)
def test_a_bad_request_is_refused_by_row_and_field(client, body, row, field, problem):
    """As the predictor says it (test_predictor.py has every case); and the next request is answered."""
    response = post(client, body)
    assert response.status_code == 400
    said = response.json()
    assert "nothing was predicted" in said["error"]
    matching = [f for f in said["detail"] if (f["row"], f["field"]) == (row, field) and problem in f["problem"]]
    assert matching, said
    assert post(client, [ROW]).status_code == 200


def test_what_was_posted_does_not_get_into_the_log(client, log):
    """BentoML would log the values that pydantic refused."""
    for body in ([{**ROW, "hour": "SECRET-4711"}], [{**ROW, "SECRET-4711": 1}], '{"SECRET-4711'):
        assert post(client, body).status_code == 400
    assert wait_until(lambda: "status=400" in log.read_text(), 10)
    assert "SECRET-4711" not in log.read_text()


def counted(client, feature: str) -> float:
    """How many unseen categories of a feature the service has counted."""
    line = f'evergreen_unseen_categories_total{{feature="{feature}"}} '
    found = [text for text in client.get("/metrics").text.splitlines() if text.startswith(line)]
    return float(found[0].removeprefix(line)) if found else 0.0


def test_an_unseen_carrier_is_answered_and_counted(client):
    """A new carrier is no reason to fail; who watches the service can see it."""
    before = counted(client, "carrier")
    known, unseen = post(client, [ROW, {**ROW, "carrier": "ZZ"}]).raise_for_status().json()["predictions"]
    assert unseen["unseen"] == ["carrier"]
    assert "unseen" not in known
    assert counted(client, "carrier") == before + 1


def test_the_example_of_the_openapi_page_works(client):
    """Whoever presses «Try it out» gets a prediction, not an error."""
    described = client.get("/docs.json").raise_for_status().json()
    body = described["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]["example"]
    assert {"carrier", "origin", "dest", "temp"} <= set(body["rows"][0])
    assert post(client, json.dumps(body)).status_code == 200
    fields = described["components"]["schemas"]["Row"]["properties"]
    assert "[miles]" in fields["distance"]["description"]
    assert fields["temp"]["nullable"] is True


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz", "/metrics", "/docs.json"])
def test_the_usual_endpoints_are_there(client, path):
    """Probes and scrapers find what they look for."""
    assert client.get(path).status_code == 200


def test_the_release_says_where_it_comes_from(client, bento):
    """Partitions, parameters, packages and the model's hash, from the service itself."""
    told = client.get("/release").raise_for_status().json()
    assert told["candidate"] == bento.name
    assert set(told["lineage"]["partitions"]["flights"]) == {"2013-01.csv", "2013-02.csv"}
    assert told["model_sha256"] == files.sha256(bento / "src" / "model.skops")


def test_it_listens_on_the_loopback_address_only(client):
    """A service that nobody exposed is not exposed: 127.0.0.2 is this machine too, and is not answered."""
    elsewhere = str(client.base_url).replace("127.0.0.1", "127.0.0.2")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{elsewhere}/livez", timeout=2)


def test_serving_writes_nothing_into_the_release(client, bento):
    """A Bento is immutable: nothing but byte code appears in it."""
    post(client, [ROW])
    held = set(files.tree(bento / "src")) - {"bentofile.yaml"}
    assert held == set(files.tree(settings.BUILD / "flight_delay" / "release"))


@pytest.mark.slow
def test_a_model_file_that_was_changed_is_not_served(bento, tmp_path):
    """Its hash is compared before it is opened; the service never gets ready, and the log says why."""
    shutil.copytree(bento, tmp_path / "bento")
    model = tmp_path / "bento" / "src" / "model.skops"
    model.write_bytes(model.read_bytes()[:-1] + b"!")
    log = tmp_path / "serve.log"
    with serving(str(tmp_path / "bento"), log) as address:
        assert wait_until(lambda: "was changed after it was packaged" in log.read_text(), 60), log.read_text()
        assert not is_ready(address)


# ── the Open Inference Protocol ───────────────────────────────────────────────────────────────────

DATATYPES = {str: "BYTES", int: "INT64"}
INPUTS = [{"name": name, "shape": [1], "datatype": DATATYPES[type(ROW[name])], "data": [ROW[name]]} for name in ROW]


def test_tensors_are_answered_as_rows_are(client, bento):
    """With the version and without, in JSON and in bytes."""
    base, probability = "/v2/models/flight_delay", post(client, [ROW]).json()["predictions"][0]["probability"]
    wanted = {"inputs": INPUTS, "outputs": [{"name": "probability"}], "id": "7"}
    for path in (f"{base}/infer", f"{base}/versions/{bento.name}/infer"):
        answer = client.post(path, json=wanted).raise_for_status().json()
        assert (answer["outputs"][0]["data"], answer["id"]) == ([probability], "7")
        assert answer["model_version"] == bento.name
    length = len(json.dumps(wanted).encode())
    wanted["parameters"] = {"binary_data_output": True}
    answer = client.post(f"{base}/infer", json=wanted).raise_for_status()
    length = int(answer.headers["inference-header-content-length"])
    assert struct.unpack("<d", answer.content[length:]) == (probability,)


def test_its_pages_say_what_is_there(client, bento):
    """Health, metadata, and what another version is told."""
    base = "/v2/models/flight_delay"
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get(f"{base}/versions/{bento.name}/ready").json() == {"name": "flight_delay", "ready": True}
    described = client.get(base).json()
    assert described["versions"] == [bento.name]
    assert {"name": "hour", "datatype": "INT64", "shape": [-1]}.items() <= described["inputs"][4].items()
    for method, path in (("GET", f"{base}/versions/9"), ("POST", "/v2/models/flight/infer")):
        answer = client.request(method, path)
        assert (answer.status_code, bento.name in answer.json()["error"]) == (404, True)


@pytest.mark.parametrize("header", ["", "-1", "5"])
def test_a_body_that_is_no_request_is_told(client, header):
    """By its text, as clients of the protocol show it."""
    headers = {"inference-header-content-length": header, "content-type": "application/octet-stream"}
    answer = client.post("/v2/models/flight_delay/infer", content=b"{}", headers=headers)
    assert (answer.status_code, "refused, nothing was predicted: 1 fault" in answer.json()["error"]) == (400, True)
