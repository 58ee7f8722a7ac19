"""Servers on this machine."""

from __future__ import annotations

import sys

import pytest

from deployments.local import servers
from tasks.ground import http, settings
from tasks.ground.errors import WorldError
from tests.conftest import Project

ANSWERS = """
import http.server, sys
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


def test_a_server_is_waited_for_and_ends_with_the_block(project: Project) -> None:
    """What it said is in its log."""
    port = http.free_port()
    url = f"http://127.0.0.1:{port}"
    assert not http.answers(url)
    with servers.process([sys.executable, "-c", ANSWERS, str(port)], "server") as running:
        servers.wait_for(url, running, "server", seconds=20)
        assert http.answers(url)
        assert not http.answers(f"{url}/nothing")
    assert running.returncode is not None
    assert not http.answers(url)
    assert "GET /nothing" in (settings.VAR / "log" / "server.log").read_text()


def test_a_server_of_another_checkout_is_known(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the environment of whoever listens; one that says nothing, or is elsewhere, is nobody's."""
    said = {"/elsewhere": "/elsewhere", str(settings.ROOT): None, "": None}
    for root, other in said.items():
        port = http.free_port()
        url = f"http://127.0.0.1:{port}/api"
        with monkeypatch.context() as patch:
            patch.setenv("EVERGREEN_ROOT", root)
            with servers.process([sys.executable, "-c", ANSWERS, str(port)], "server") as running:
                servers.wait_for(f"http://127.0.0.1:{port}", running, "server", seconds=20)
                assert servers.other_checkout(url) == other
    assert servers.other_checkout(url) is None
    assert servers.other_checkout("https://prefect.example.com/api") is None


def test_a_server_that_ends_is_told_with_its_log(project: Project) -> None:
    """Rather than waited for."""
    with (
        servers.process([sys.executable, "-c", "raise SystemExit(3)"], "server") as running,
        pytest.raises(
            WorldError, match=r"^server ended with code 3 before it answered\. Its log: .*/var/log/server\.log$"
        ),
    ):
        servers.wait_for("http://127.0.0.1:9", running, "server", seconds=20)


def test_a_server_that_does_not_answer_is_told_with_its_log(project: Project) -> None:
    """After as long as it was given; then it is ended all the same."""
    with (
        servers.process([sys.executable, "-c", "import time; time.sleep(60)"], "server") as running,
        pytest.raises(WorldError, match=r"^server did not answer on http://127\.0\.0\.1:9 within 0 s\. Its log: "),
    ):
        servers.wait_for("http://127.0.0.1:9", running, "server", seconds=0.2)
    assert running.returncode is not None
