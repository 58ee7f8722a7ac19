"""A flow run here and now, as somebody at a terminal waits for it."""

from __future__ import annotations

import ast
import sys
from importlib import import_module
from inspect import signature
from pathlib import Path

import httpx
import pytest
from prefect.exceptions import PrefectHTTPStatusError

from flows.prefect_support import api, run_local
from tasks.ground import http
from tests.conftest import Project


@pytest.mark.parametrize("name", ["ingest", "train", "rollout", "monitor", "predict", "backtest"])
def test_a_flow_says_itself_how_it_ended(name: str) -> None:
    """Prefect would call one Completed whose failed future is returned beside a plain value, or in a dict."""
    module = import_module(f"flows.{name}")
    assert signature(getattr(module, name).fn).return_annotation == "State[Any]"
    called = {
        node.attr
        for node in ast.walk(ast.parse(Path(module.__file__ or "").read_text()))
        if isinstance(node, ast.Attribute)
    }
    assert not called & {"submit", "map"}


def test_without_a_server_one_line_says_so(small: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not Prefect's traceback."""
    monkeypatch.setenv("PREFECT_API_URL", f"http://somebody:hunter2@127.0.0.1:{http.free_port()}/api")
    done = small.run(sys.executable, "-m", "deployments.cli", "ingest", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("PrefectApiError: the Prefect server does not answer on http://***@127.0.0.1:")
    assert "evergreen up" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "hunter2" not in done.stdout + done.stderr


def test_a_server_that_fails_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy server answers 503; that is not the flow's fault, and Prefect's traceback helps nobody."""
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    request = httpx.Request("POST", "http://127.0.0.1:4200/api/flow_runs/")
    answer = httpx.Response(503, request=request)

    def fail(**_: object) -> None:
        raise PrefectHTTPStatusError("busy", request=request, response=answer)

    monkeypatch.setattr(import_module("flows.ingest"), "ingest", fail)
    with pytest.raises(api.PrefectApiError, match=r"^the Prefect server on .*:4200/api answered 503: if it is busy"):
        run_local.run("ingest")
