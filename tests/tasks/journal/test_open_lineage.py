"""The journal told to a catalogue of lineage: every line, in order, also after the catalogue was gone."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from deployments import cli
from tasks.ground import settings
from tasks.ground.errors import SourceUnavailable
from tasks.journal import journal, open_lineage

pytestmark = pytest.mark.group("lineage", "openlineage")

MODEL = "flight_delay"


class Catalogue(ThreadingHTTPServer):
    """Takes events, as Marquez does; `fails` says from which on it does not."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Taking)
        self.events: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.fails = 1_000_000


class Taking(BaseHTTPRequestHandler):
    """POST /api/v1/lineage."""

    server: Catalogue

    def do_POST(self) -> None:
        """Keep the event, or fail."""
        event = json.loads(self.rfile.read(int(self.headers["content-length"])))
        is_taken = self.path == "/api/v1/lineage" and len(self.server.events) < self.server.fails
        if is_taken:
            self.server.events.append(event)
            self.server.keys.add(self.headers.get("authorization"))
        self.send_response(201 if is_taken else 400)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Catalogue]:
    """A catalogue that is listened to, and a journal of a story."""
    monkeypatch.setattr(settings, "VAR", tmp_path / "var")
    with Catalogue() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("OPENLINEAGE_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("OPENLINEAGE_API_KEY", "secret-of-ours")
        monkeypatch.setenv("OPENLINEAGE_NAMESPACE", "flights")
        journal.append(journal.PLATFORM, "data", {"version": "d1.dir", "before": None}, "delivered")
        journal.append(MODEL, "training", {"candidate": "c1", "data": "d1.dir", "commit": "abc"})
        journal.append(MODEL, "verdict", {"challenger": "c1", "champion": None, "promoted": True, "summary": "better"})
        yield server
        server.shutdown()


def test_data_training_and_verdict_are_one_story(catalogue: Catalogue, capsys: pytest.CaptureFixture[str]) -> None:
    """The training reads the version that was made, and the verdict what was trained; a second time nothing is told."""
    assert cli.main(["journal", "lineage"]) == 0
    assert "3 new lines were told" in capsys.readouterr().out
    by_job = {event["job"]["name"]: event for event in catalogue.events}
    made, learned = by_job["platform.data"], by_job[f"{MODEL}.training"]
    assert {event["job"]["namespace"] for event in catalogue.events} == {"flights"}
    assert {event["eventType"] for event in catalogue.events} == {"COMPLETE"}
    named = [
        (each["namespace"], each["name"], each["facets"]["version"]["datasetVersion"]) for each in learned["inputs"]
    ]
    assert named == [("flights", "data", "d1.dir")]
    assert made["outputs"][0]["facets"]["version"]["datasetVersion"] == "d1.dir"
    (judged,) = by_job[f"{MODEL}.verdict"]["inputs"]
    assert judged["facets"]["version"]["datasetVersion"] == learned["outputs"][0]["facets"]["version"]["datasetVersion"]
    tags = {each["key"]: each["value"] for each in by_job[f"{MODEL}.verdict"]["run"]["facets"]["tags"]["tags"]}
    assert (tags["promoted"], tags["summary"], tags["who"]) == ("True", "better", journal.account())
    assert catalogue.keys == {"Bearer secret-of-ours"}
    assert cli.main(["journal", "lineage"]) == 0
    assert "nothing is new" in capsys.readouterr().out


def test_what_a_catalogue_did_not_take_is_told_later(catalogue: Catalogue) -> None:
    """In order, none lost; one that was taken has the same run id when it comes again."""
    catalogue.fails = 2
    with pytest.raises(SourceUnavailable, match=f"1 of 2 events of {MODEL} were sent") as refused:
        open_lineage.send()
    assert "secret-of-ours" not in str(refused.value)
    journal.append(MODEL, "rollout", {"candidate": "c1", "outcome": "live", "version": 1})
    catalogue.fails = 1_000_000
    assert open_lineage.send() == 2
    names = [event["job"]["name"].partition(".")[2] for event in catalogue.events]
    assert names == ["data", "training", "verdict", "rollout"]
    again = open_lineage.event(MODEL, journal.lines(MODEL, "verdict")[0])
    assert again.run.runId in {event["run"]["runId"] for event in catalogue.events}


def test_it_is_off_until_a_variable_says_where_to(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """OpenLineage's client itself would print the events."""
    monkeypatch.delenv("OPENLINEAGE_URL")
    assert not open_lineage.is_on()
    assert cli.main(["journal", "lineage"]) != 0
    assert "OPENLINEAGE_URL=http" in capsys.readouterr().err
