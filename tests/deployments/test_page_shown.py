"""The status page in a real browser, as the router serves it, beside a Prefect server that says what it plans."""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from deployments.local import servers
from deployments.status_page import facts, plans
from deployments.status_page import page as status_page
from flows.prefect_support import api
from tasks.ground import files, http, paths
from tasks.release.registry import desired_state
from tasks.release.registry.desired_state import DesiredState
from tests.deployments import alone, page_sample
from tests.deployments.conftest import until
from tests.deployments.test_browser import CHROMIUM, Page, page

__all__ = ["page"]  # the fixture

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        CHROMIUM is None and not os.environ.get("CI"), reason="there is no chromium here (apt-get install chromium)"
    ),
]


@dataclass(frozen=True)
class Served:
    """A router beside a Prefect server, of a project whose model has lived for some weeks."""

    url: str
    root: Path


@pytest.fixture(scope="module")
def served(small_copied: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """No model is up: the page is made of files."""
    with alone.server(small_copied, tmp_path_factory.mktemp("shown") / "project") as there:
        page_sample.write("tiny")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("EVERGREEN_PORT", str(http.free_port()))
            desired_state.write("tiny", DesiredState())  # a router would start what is named there, or was last
            url = f"http://127.0.0.1:{os.environ['EVERGREEN_PORT']}"
            with servers.process([sys.executable, "-m", "deployments.serving.router"], "router") as running:
                servers.wait_for(f"{url}/healthz", running, "router", 60)
                status_page.write()
                yield Served(f"{url}/status/", there.project.root)


def look(page: Page, url: str, width: int = 1200, scheme: str = "light") -> list[dict[str, Any]]:
    """Open the page; gives what the browser told meanwhile: requests, errors, what it wrote to the console."""
    page.open("about:blank")  # away from the browser's own first page
    until(lambda: page.script("location.href") == "about:blank", 30)
    page.told.clear()
    for domain in ("Page", "Network", "Runtime", "Log"):
        page.call(f"{domain}.enable")
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    page.call("Emulation.setDeviceMetricsOverride", **size)
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    page.open(url)
    until(
        lambda: page.script("document.readyState") == "complete" and page.script("!!document.querySelector('main')"), 30
    )
    time.sleep(0.5)
    page.script("'whatever it told until now was received'")
    return page.told


def test_what_prefect_plans_is_on_the_page(served: Served) -> None:
    """Each flow with its next run, or that it is paused; the links are those of the server's own UI."""
    ui = facts.tools().prefect
    assert ui is not None
    planned = plans.read(ui)
    assert {title.split("/")[1] for title in planned} == {"ingest", "tiny"}
    assert planned["train/tiny"].cron == "5-59/15 * * * *"
    assert planned["predict/tiny"].cron is None
    there = planned["train/tiny"].url.rpartition("/")[2]
    soon = (datetime.now(UTC) + timedelta(seconds=20)).isoformat(timespec="seconds")  # sooner than any schedule
    state = {"type": "SCHEDULED", "state_details": {"scheduled_time": soon}}
    run = api.call(f"/deployments/{there}/create_flow_run", {"state": state})
    train = plans.read(ui)["train/tiny"]
    assert datetime.fromisoformat(str(train.next)) <= datetime.fromisoformat(soon)
    assert (train.paused, train.running, train.last) == (False, None, None)
    api.call(f"/flow_runs/{run['id']}/set_state", {"state": {"type": "RUNNING"}, "force": True})
    assert plans.read(ui)["train/tiny"].running == api.run_url(run["id"])
    api.call(f"/deployments/{there}/pause_deployment", {})
    state = {"type": "FAILED", "name": "Failed", "message": "no\nrows"}
    api.call(f"/flow_runs/{run['id']}/set_state", {"state": state, "force": True})
    train = plans.read(ui)["train/tiny"]
    assert train.paused
    assert train.last is not None
    assert (train.last.state, train.last.message, train.last.url) == ("FAILED", "no rows", api.run_url(run["id"]))
    by_browser = urllib.request.Request(train.url, headers={"accept": "text/html"})
    with urllib.request.urlopen(by_browser, timeout=10) as answer:
        assert answer.status == 200
    status_page.write()
    text = paths.status_page().read_text(encoding="utf-8")
    assert f'href="{train.url}"' in text
    assert "paused" in text


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (375, "light"), (375, "dark"), (1200, "dark")])
def test_a_browser_shows_it_without_a_complaint(served: Served, page: Page, width: int, scheme: str) -> None:
    """Nothing is asked of another server, nothing is refused or fails, and a phone need not scroll sideways."""
    told = look(page, served.url, width, scheme)
    asked = [one["params"]["request"]["url"] for one in told if one["method"] == "Network.requestWillBeSent"]
    assert served.url in asked
    assert {address for address in asked if not address.startswith((served.url, "data:"))} == set()
    wrong = ("Network.loadingFailed", "Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
    assert [one for one in told if one["method"] in wrong] == []
    assert page.script("document.documentElement.scrollWidth") <= width
    assert (
        page.script(
            "[...document.querySelectorAll('main svg')].filter(s => s.getBoundingClientRect().width < 20).length"
        )
        == 0
    )
    assert page.script("getComputedStyle(document.body).fontFamily").startswith("system-ui")
    ground = page.script("getComputedStyle(document.body).backgroundColor")
    assert (
        sum(json.loads(f"[{ground[4:-1]}]")) > 600 if scheme == "light" else sum(json.loads(f"[{ground[4:-1]}]")) < 150
    )
    assert page.script("document.body.getElementsByTagName('*').length") > 200


def test_a_screen_reader_is_told_names_and_roles(served: Served, page: Page) -> None:
    """What the browser hands over: every picture and every link has a name, and the landmarks are there."""
    look(page, served.url)
    page.call("Accessibility.enable")
    nodes = [node for node in page.call("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]]
    roles = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes]
    there = {role for role, _ in roles}
    assert {"banner", "navigation", "main", "contentinfo", "heading", "region", "image", "button"} <= there
    assert [
        role
        for role, name in roles
        if role in ("image", "link", "button", "heading", "region", "DisclosureTriangle") and not name
    ] == []
    assert ("heading", "Evergreen") in roles


def test_it_is_used_by_keyboard(served: Served, page: Page) -> None:
    """The first stop skips to the models; details are opened by Enter, and what has focus is seen."""
    look(page, served.url)

    def press(key: str, code: int, text: str = "") -> None:
        for kind in ("keyDown", "keyUp"):
            page.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, text=text)

    press("Tab", 9)
    assert page.script("document.activeElement.className") == "skip"
    press("Enter", 13, "\r")
    assert page.script("document.activeElement.id") == "main"
    page.script("document.getElementById('quality-tiny-title').focus()")
    press("Enter", 13, "\r")
    assert page.script("document.getElementById('quality-tiny').open")
    assert page.script("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_it_becomes_new_by_itself_and_keeps_ones_place(served: Served, page: Page) -> None:
    """What was opened stays open, and the page stays where it was scrolled to; unless it is told to stay as it is."""
    look(page, served.url)
    page.script("document.getElementById('quality-tiny').open = true; scrollTo(0, 700)")
    at = page.script("scrollY")
    files.write_json(page_sample.report_path("tiny"), {**page_sample.report("tiny"), "alarms": []})
    status_page.write()
    until(lambda: "no alarm is open" in page.text() or "No release is live" in page.text(), 30, "the new page")
    until(lambda: "Open alarms" not in page.text(), 30, "the new page")
    assert page.script("document.getElementById('quality-tiny').open")
    assert abs(page.script("scrollY") - at) < 400
    assert page.script("document.getElementById('old').hidden")
    page.script("document.getElementById('hold').click()")
    assert page.script("document.getElementById('hold').getAttribute('aria-pressed')") == "true"
