"""`python -m flows …`: what a person at a terminal gives it, and is told."""

from __future__ import annotations

import ast
import sys
from importlib import import_module
from inspect import signature
from pathlib import Path

import pytest

from flows.__main__ import main
from flows.prefect_support import run_local
from tasks.ground import http
from tests.conftest import Project


@pytest.mark.parametrize("name", run_local.TAKES)
def test_what_a_flow_is_said_to_take_it_takes(name: str) -> None:
    """In this order, and no more of it is needed than is said."""
    takes = run_local.TAKES[name].split()
    has = list(signature(getattr(import_module(f"flows.{name}"), name)).parameters.values())
    assert [one.strip("<>[]") for one in takes] == [one.name for one in has][: len(takes)]
    needed = {one.name for one in has if one.default is one.empty}
    assert {one.strip("<>") for one in takes if one.startswith("<")} == needed


@pytest.mark.parametrize("name", run_local.TAKES)
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


@pytest.mark.parametrize(
    "arguments", [[], ["trian", "tiny"], ["train"], ["predict", "tiny"], ["ingest", "tiny"], ["monitor", "tiny", "x"]]
)
def test_wrong_usage_ends_with_two(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """And says what is right."""
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("usage: python -m flows ")
    if arguments[:1] == ["predict"]:
        assert said == "usage: evergreen predict <model> <source> [to] [version] [chunk]\n"


def test_without_a_server_one_line_says_so(small: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not Prefect's traceback."""
    monkeypatch.setenv("PREFECT_API_URL", f"http://somebody:hunter2@127.0.0.1:{http.free_port()}/api")
    done = small.run(sys.executable, "-m", "flows", "ingest", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("PrefectApiError: the Prefect server does not answer on http://***@127.0.0.1:")
    assert "make up" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "hunter2" not in done.stdout + done.stderr
