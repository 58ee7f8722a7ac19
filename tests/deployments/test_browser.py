"""The UI in a real browser: a training is started from its form, and seen to finish."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from flows.prefect_support import api
from tests.deployments.conftest import Platform, until

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync", "--remote-debugging-port=0", "--window-size=1400,1000"]

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        CHROMIUM is None and not os.environ.get("CI"), reason="there is no chromium here (apt-get install chromium)"
    ),
]


class Page:
    """One page of a browser, by Chromium's own DevTools protocol."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._calls = 0
        self.told: list[dict[str, Any]] = []
        """What the browser said unasked, of the domains that were enabled."""

    def call(self, method: str, **parameters: Any) -> Any:
        """Call a method of the protocol."""
        self._calls += 1
        self._socket.send(json.dumps({"id": self._calls, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv(timeout=30))
            if answer.get("id") == self._calls:
                return answer["result"]
            self.told.append(answer)

    def open(self, url: str) -> None:
        """Go to an address."""
        self.call("Page.navigate", url=url)

    def script(self, code: str) -> Any:
        """What a piece of JavaScript gives."""
        return self.call("Runtime.evaluate", expression=code, returnByValue=True)["result"].get("value")

    def text(self) -> str:
        """What a person can read."""
        return str(self.script("document.body ? document.body.innerText : ''"))

    def click(self, label: str) -> bool:
        """Click the button with this label, if it is there."""
        button = f"[...document.querySelectorAll('button')].find(b => b.innerText.trim() === {json.dumps(label)})"
        return bool(self.script(f"(() => {{ const b = {button}; if (b) b.click(); return !!b }})()"))


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    """A page of a headless Chromium with a profile of its own."""
    assert CHROMIUM, "CI installs chromium (.ci/run)"
    profile = tmp_path / "profile"
    browser = subprocess.Popen(
        [CHROMIUM, *FLAGS, f"--user-data-dir={profile}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        port = until((profile / "DevToolsActivePort").exists, 30) and _port(profile)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=10) as answer:
            target = next(one for one in json.load(answer) if one["type"] == "page")
        with connect(target["webSocketDebuggerUrl"], max_size=None) as socket:
            yield Page(socket)
    finally:
        browser.terminate()
        browser.wait(timeout=20)


def _port(profile: Path) -> int:
    time.sleep(0.2)  # the file is there a moment before its content
    return int((profile / "DevToolsActivePort").read_text().splitlines()[0])


def submitted(page: Page, platform: Platform) -> str:
    """Submit the form; gives the run. A click that comes before the form is ready does nothing: click again."""
    for _ in range(4):
        page.click("Submit")  # once it was taken, the page is another one
        with suppress(AssertionError):
            return str(until(lambda: platform.runs("train"), 35, "the run")[-1]["id"])
    raise AssertionError("the form was submitted four times, and no run began")


def test_a_training_is_started_from_its_form_and_seen_to_finish(platform: Platform, page: Page) -> None:
    """The form is filled in already; the run's page shows it completed, its stages, and the verdict's picture."""
    deployment = api.call("/deployments/name/train/tiny")["id"]
    page.open(f"{platform.ui}/deployments/deployment/{deployment}/run")
    until(lambda: "again (Optional)" in page.text(), 60, "the form")
    assert "tiny" in page.text()
    run = submitted(page, platform)
    page.open(f"{platform.ui}/runs/flow-run/{run}")
    until(lambda: "Completed" in page.text(), 200, "the run to be shown as completed")
    tasks = api.call("/task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
    assert {"validate@tiny", "train@tiny", "judge it against the champion"} <= {one["name"] for one in tasks}

    artifact = api.call("/artifacts/filter", {"artifacts": {"key": {"any_": ["verdict-tiny"]}}})[0]["id"]
    page.open(f"{platform.ui}/artifacts/artifact/{artifact}")
    picture = "[...document.images].filter(i => i.src.startsWith('data:image/svg+xml') && i.naturalWidth > 300).length"
    until(lambda: page.script(picture) == 1, 60, "the picture of the verdict")
