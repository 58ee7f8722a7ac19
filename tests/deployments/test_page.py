"""The status page: what it says, of whom, and what it says where there is nothing or something is broken."""

from __future__ import annotations

import asyncio
import copy
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.serving import router
from deployments.status_page import assets, charts, facts, models, monitoring
from deployments.status_page import page as status_page
from deployments.status_page.page import PageRefresher
from deployments.watching.watcher import PollingLoop
from tasks.ground import files, params, paths, settings
from tasks.ground.http import free_port
from tasks.pictures import axes
from tests.conftest import Project, copy_project, work_on
from tests.deployments import page_sample

NOW = datetime(2026, 11, 21, 6, 30, tzinfo=UTC)
VOID = {"meta", "link", "br"}


class Read(HTMLParser):
    """A page as a browser and a screen reader find it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.source = page
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.crossed: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """As HTMLParser has it."""
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """As HTMLParser has it."""
        if not self.open or self.open.pop() != tag:
            self.crossed.append(tag)

    def handle_data(self, data: str) -> None:
        """As HTMLParser has it."""
        if self.open and self.open[-1] not in ("style", "script", "title"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        """What is read."""
        return " ".join(" ".join(self.texts).split())

    def of(self, *names: str) -> list[dict[str, str | None]]:
        """The attributes of the elements of these names."""
        return [attributes for name, attributes in self.tags if name in names]


def read() -> Read:
    """The page as things are."""
    return Read(status_page.render(NOW))


@pytest.fixture
def lived(small: Project) -> Project:
    """A project whose model has lived for some weeks."""
    page_sample.write("tiny")
    return small


@pytest.fixture(scope="module")
def page(small_copied: Path, tmp_path_factory: pytest.TempPathFactory) -> Read:
    """The page of a model that has lived for some weeks."""
    root = tmp_path_factory.mktemp("page") / "project"
    copy_project(small_copied, root)
    with pytest.MonkeyPatch.context() as patch:
        work_on(root, patch)
        page_sample.write("tiny")
        return read()


# ── what it says ──────────────────────────────────────────────────────────────────────────────────


def test_a_fresh_clone_is_told_what_will_be_there(small: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """No model is live, nothing is broken, no picture is empty; and the page says what to do."""
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{free_port()}/api")
    assert facts.tools().prefect is None
    page = read()
    assert "No model is live yet" in page.text
    assert "make run" in page.text
    assert "Prefect does not answer" in page.text
    assert "cannot be shown" not in page.text
    assert "readings: 3 partitions, 2013-01 to 2013-03; none in quarantine" in page.text


def test_it_names_the_live_release_how_good_it_is_and_why(page: Read) -> None:
    """Live, measured, promised, drifted, refused, decided: each with its numbers."""
    for text in (
        "1 alarm is open: tiny, drift: vibration",
        "version 3",
        "20 Nov 2026, 18:04 UTC",
        "5 to 11 Nov 2013: measured 0.435 (0.415 to 0.455), 15% above the promised 0.378 (0.344 to 0.412).",
        "vibration is 0.62 mm/s higher, 0.71 standard deviations since 2013-10-14.",
        "evergreen acknowledge tiny 2013-10-20-vibration-v3",
        "✗ refused",
        "slice:station=west log_loss is 0.041 above the champion's",
        "4,000 new rows, 1 are asked",
        "version 2 was withdrawn: replay logged requests",
        "2 promoted, 1 refused",
        "2 went live, 1 withdrawn",
    ):
        assert text in page.text
    assert "starts" not in page.text.partition("Open alarms")[2].partition("Will this pump")[0], "a closed alarm"


def test_a_quarantined_partition_and_a_new_version_are_shown(small: Project) -> None:
    """What was refused, why, and what to do; and that nobody was told of the data version yet."""
    report = {"dataset": "readings", "partition": "2013-04", "reason": "vibration is negative", "todo": "send it again"}
    files.write_json(small.root / "var/quarantine/readings/2013-04-0a1b2c3d/report.json", report)
    page = read()
    assert "readings 2013-04" in page.text
    assert (
        "Vibration is negative. What to do: Send it again. var/quarantine/readings/2013-04-0a1b2c3d/report.md"
        in page.text
    )
    assert "1 delivery in quarantine" in page.text
    assert "The next run of ingest notifies the models of it." in page.text
    (small.root / "var/quarantine/readings/2013-04-0a1b2c3d/closed.json").write_text("{}")
    assert "readings 2013-04" not in read().text
    assert f"commit {small.run('git', 'rev-parse', '--short', 'HEAD').stdout.strip()}: as it is" in page.text


def test_a_data_version_of_as_many_files_as_before_is_shown_with_its_files(small: Project) -> None:
    """A correction changes no number of files; what a person keeps in data.dvc beside it is not taken for its hash."""
    path = small.root / "data.dvc"
    md5 = "0" * 31 + "1.dir"
    text = re.sub(r"md5: \w+\.dir", f"md5: {md5}", path.read_text())
    path.write_text(f"{text}meta:\n  revisions:\n    readings/2013-03:\n    - {{file: a.csv, md5: x}}\n")
    small.run("git", "commit", "-qam", "March, corrected")
    committed = facts.committed()
    assert [one.subject for one in committed][:1] == ["March, corrected"]
    assert committed[0].md5 == md5
    assert committed[0].nfiles == committed[1].nfiles == 3
    assert facts.revised() == {"readings": 1}
    assert "2013-01 to 2013-03, 1 revised" in read().text


@pytest.mark.parametrize("names", [["2013-01"], [f"2013-{n:02d}" for n in range(1, 10)], ["x" * 40, "y" * 90]])
def test_the_names_of_partitions_do_not_overlap(names: list[str]) -> None:
    """Few and narrow cells, long names: each text ends before the next one begins, and inside the picture."""
    drawn = str(charts.partitions({"flights": [(name, True) for name in names]}, ""))
    texts = [(float(x), text) for x, text in re.findall(r'<text x="([\d.]+)" y="46[^"]*">([^<]+)</text>', drawn)]
    assert texts or max(map(len, names)) > 20
    for (x, text), (after, _) in pairwise([*texts, (axes.WIDTH + 8.0, "")]):
        assert x + 6.6 * len(text) < after


def test_what_is_not_looked_at_is_not_said_to_be_empty(small: Project) -> None:
    """A quarantine in a bucket is not read for the page."""
    small.edit("params.yaml", "quarantine: var/quarantine", "quarantine: s3://somewhere/quarantine")
    page = read()
    assert "readings: 3 partitions, 2013-01 to 2013-03; the quarantine is a bucket" in page.text
    assert "none in quarantine" not in page.text
    assert "«quarantine» lists what is in it" in page.text


# ── what is broken ────────────────────────────────────────────────────────────────────────────────


PARTS = {
    "var/serving/tiny.json": 0,  # it is made again of the journal
    "var/monitoring/tiny/report.json": 3,
    "var/journal/tiny.jsonl": 0,  # what is no line is left out: `evergreen journal verify` says where
    "var/memo/announced.json": 2,  # an empty one is none
    "var/quarantine/readings/x/report.json": 3,
    "data.dvc": 3,
}
"""What the page is made of, and how many of three wrong contents it must complain of."""


def test_a_broken_file_is_named_in_its_place_and_the_rest_stays(
    lived: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is in it; the page stays whole HTML."""
    monkeypatch.setattr(facts, "committed", list)  # Git answers slowly, and nothing here is in it
    for name, wanted in PARTS.items():
        path = lived.root / name
        before = path.read_bytes() if path.exists() else None
        path.parent.mkdir(parents=True, exist_ok=True)
        complained = 0
        for content in ("{half\n", "[]\n", '{"a": 1}\n'):
            path.write_text(content)
            page = read()
            assert not page.crossed, name
            assert "Will this pump fail today?" in page.text, name
            assert "What happens next" in page.text, name
            complaints = [
                text
                for text in page.texts
                if re.search("cannot be|no data version|report is torn", text, re.IGNORECASE)
            ]
            complained += bool(complaints)
            assert len(complaints) < 5, "one file, one place"
        assert complained == wanted, name
        path.unlink() if before is None else path.write_bytes(before)


def test_a_params_file_that_cannot_be_read_is_told(lived: Project) -> None:
    """And there is still a page."""
    (lived.root / "params.yaml").write_text("models: [")
    page = read()
    assert "params.yaml cannot be read" in page.text
    assert "params.yaml is not YAML" in page.text


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where there is something, but the first of every list is enough."""
    if path:
        yield path
    entries = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, entry in entries:
        yield from leaves(entry, (*path, key))


def test_no_field_of_a_report_can_take_the_page_along(lived: Project) -> None:
    """Each one missing, null, or a text: every part is made, and says what is wrong or leaves it out."""
    good = page_sample.report("tiny", weeks=2)
    read, tools = facts.ModelFacts.read("tiny", params.load().model("tiny")), facts.Tools(None, None, None)
    for path in leaves(good):
        for instead in (..., None, "nonsense"):
            report = copy.deepcopy(good)
            place = report
            for key in path[:-1]:
                place = place[key]
            if instead is ...:
                del place[path[-1]]
            else:
                place[path[-1]] = instead
            files.write_json(page_sample.report_path("tiny"), report)
            broken = replace(read, report=facts.attempt(lambda: facts.monitoring_report("tiny")))
            sentence, _ = status_page.headline([broken], [])
            shown = [models.live(broken, tools), *monitoring.pictures(broken), monitoring.alarms([broken])]
            assert sentence, (path, instead)
            assert "version 3" in shown[0], (path, instead)


def test_what_somebody_wrote_is_never_markup(lived: Project) -> None:
    """Not in a text, not in an attribute, not from a file's name."""
    evil = "\"><script>alert(1)</script><img src=x onerror='alert(2)'>"
    report = json.loads(json.dumps(page_sample.report("tiny")).replace("vibration", json.dumps(evil)[1:-1]))
    files.write_json(page_sample.report_path("tiny"), report)
    (lived.root / "data/readings/<b>2013-09.csv").touch()
    text = status_page.render(NOW)
    assert "alert(1)" in text
    page = Read(text)
    assert len(page.of("script")) == 1
    assert not page.of("img", "b")
    assert not page.crossed


# ── how it is made ────────────────────────────────────────────────────────────────────────────────


def test_a_screen_reader_finds_its_way(page: Read) -> None:
    """Landmarks, headings in order, a name for every picture, a caption for every table, every name once."""
    assert page.of("html")[0]["lang"] == "en"
    for landmark in ("header", "nav", "main", "footer"):
        assert len(page.of(landmark)) == 1
    levels = [int(name[1]) for name, _ in page.tags if re.fullmatch(r"h[1-6]", name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    drawn = page.of("svg")
    assert len(drawn) > 8
    assert all(
        one.get("aria-hidden") == "true" or (one["role"] == "img" and len(one["aria-label"] or "") > 30)
        for one in drawn
    )
    assert len(page.of("table")) == len(page.of("caption")) > 3
    ids = [str(attributes["id"]) for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {str(one["aria-labelledby"]) for one in page.of("section")} <= set(ids)
    labels = " ".join(str(one.get("aria-label")) for one in drawn)
    assert "Promised: 0.378 (0.344 to 0.412)" in labels
    assert "Beyond it: vibration" in labels


def test_nothing_is_fetched_from_elsewhere_and_no_style_is_inline(page: Read) -> None:
    """So that the policy may forbid both; the hashes in it are those of what is in the page."""
    assert not page.crossed
    assert not page.open
    loaded = [
        str(one.get("src") or one.get("href")) for one in page.of("img", "script", "link", "iframe", "use", "image")
    ]
    assert all(address == "None" or address.startswith("data:") for address in loaded)
    assert not any(key == "style" or key.startswith("on") for _, attributes in page.tags for key in attributes)
    assert re.findall(r"<style>(.*?)</style>", page.source, re.DOTALL) == [assets.STYLE]
    assert re.findall(r"<script>(.*?)</script>", page.source, re.DOTALL) == [assets.SCRIPT]
    assert str(page.of("meta")[1]["content"]) in assets.POLICY
    assert "unsafe" not in assets.POLICY
    assert "http" not in assets.STYLE + assets.SCRIPT


def colours() -> list[dict[str, str]]:
    """The variables of the light theme, and of the dark one."""
    themes = re.findall(r":root\{(.*?)\}", assets.STYLE, re.DOTALL)
    return [dict(re.findall(r"--(\w+):(#[0-9a-f]{6})", theme)) for theme in themes]


def contrast(one: str, other: str) -> float:
    """WCAG 2.2: (L₁ + 0.05) / (L₂ + 0.05), of relative luminances."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_every_text_stands_out_from_its_ground_in_both_themes() -> None:
    """At least 4.5 to 1; lines and dots at least 3 to 1."""
    light, dark = colours()
    assert light.keys() == dark.keys()
    texts = [
        ("ink", "ground"),
        ("quiet", "ground"),
        ("accent", "ground"),
        ("bad", "ground"),
        ("ink", "badsoft"),
        ("bad", "badsoft"),
    ]
    texts += [("accent", "soft"), ("quiet", "band"), ("accent", "badsoft"), ("ink", "raised")]
    signs = [("accent", "band"), ("bad", "band"), ("quiet", "band"), ("ink", "band")]
    for theme in (light, dark):
        assert [pair for pair in texts if contrast(theme[pair[0]], theme[pair[1]]) < 4.5] == []
        assert [pair for pair in signs if contrast(theme[pair[0]], theme[pair[1]]) < 3] == []


def test_what_is_torn_is_named_by_its_path_in_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is shown to others, who need not know a folder of this machine; and what is not there is no error."""
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    path = tmp_path / "var" / "report.json"
    assert facts.read(path) is None
    files.write_text(path, "{")
    read = facts.attempt(lambda: facts.read(path))
    assert isinstance(read, facts.Broken)
    assert read.why.startswith("var/report.json is not whole: JSONDecodeError")
    assert str(tmp_path) not in read.why


def test_it_is_made_without_anything_heavy() -> None:
    """Neither pandas nor MLflow nor Prefect: the watcher, which is small, makes it."""
    heavy = {"pandas", "numpy", "scipy", "pyarrow", "matplotlib", "mlflow", "prefect", "dvc"}
    code = "import sys; from tasks.ground import settings; settings.apply(); "
    code += "import deployments.status_page.page; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not heavy & set(done.stdout.split())


def test_the_command_writes_the_file(small: Project) -> None:
    """`evergreen page`."""
    said = small.run(sys.executable, "-m", "deployments.cli", "page").stdout
    assert Path(said.strip()) == small.root / "var/status/index.html"
    assert "No model is live yet" in (small.root / "var/status/index.html").read_text(encoding="utf-8")


# ── kept new ──────────────────────────────────────────────────────────────────────────────────────


def test_it_is_written_when_something_changed_and_each_minute(lived: Project) -> None:
    """Not otherwise; and looked at no more often than every two seconds."""
    clock = [100.0]
    refresher, errors = PageRefresher(lambda: clock[0]), list[str]()
    loop = PollingLoop({"page": (refresher.look, 2.0)}, errors.append, lambda: clock[0])

    def later(seconds: float) -> bool:
        clock[0] += seconds
        loop.poll()
        return refresher.written == clock[0]

    assert later(0)
    assert not later(1)
    assert not later(2)
    files.write_json(page_sample.report_path("tiny"), {**page_sample.report("tiny"), "alarms": []})
    assert not later(1), "it looked just before"
    assert later(2)
    assert "no alarm is open" in paths.status_page().read_text(encoding="utf-8")
    assert not later(3)
    report = {"dataset": "readings", "partition": "2013-04", "reason": "empty", "todo": "send it again"}
    files.write_json(lived.root / "var/quarantine/readings/2013-04-0a1b2c3d/report.json", report)
    assert later(3)
    assert later(61)
    assert not errors


def test_a_page_that_cannot_be_written_is_told_once(lived: Project) -> None:
    """The watcher goes on."""
    errors: list[str] = []
    loop = PollingLoop({"page": (PageRefresher().look, 0.0)}, errors.append)
    (lived.root / "var/status").write_text("in the way")
    for _ in range(3):
        loop.poll()
    assert len(errors) == 1
    assert "the status page cannot be written" in errors[0]
    (lived.root / "var/status").unlink()
    loop.poll()
    assert errors[1:] == ["all is well again"]
    assert (lived.root / "var/status/index.html").exists()


# ── shown ─────────────────────────────────────────────────────────────────────────────────────────


def ask(path: str, accept: str = "text/html,*/*;q=0.8", method: str = "GET") -> httpx.Response:
    """Ask the router, in this process; no model is served."""

    async def go() -> httpx.Response:
        transport = httpx.ASGITransport(app=router.Router())
        async with httpx.AsyncClient(transport=transport, base_url="http://router") as client:
            return await client.request(method, path, headers={"accept": accept})

    return asyncio.run(go())


def test_a_browser_is_shown_the_page_and_an_application_gets_json(lived: Project) -> None:
    """By the same addresses; never from a cache, and with a policy that names this very style and script."""
    assert ask("/status/").status_code == 404
    status_page.write()
    answer = ask("/status/")
    assert answer.status_code == 200
    assert answer.content == paths.status_page().read_bytes()
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-security-policy"] == assets.POLICY
    card = ask("/status/tiny.html")
    assert (card.status_code, card.headers["content-security-policy"]) == (200, assets.POLICY)
    assert card.content == paths.model_card("tiny").read_bytes()
    for path in ("/status/other.html", "/status/%2e%2e/state.json", "/status/a%00b.html"):
        assert ask(path).status_code in (200, 404)
        assert b'"version"' not in ask(path).content
    for path in ("/", "/status"):
        assert (ask(path).status_code, ask(path).headers["location"]) == (307, "/status/")
    assert ask("/status", accept="*/*").json()["models"] == {}
    assert ask("/", accept="application/json").json()["evergreen"] == "serves models"
    assert ask("/status/", method="POST").status_code == 405


def test_the_data_docs_are_shown_beside_it(lived: Project) -> None:
    """The page's own link leads there; nothing outside of var/reports is shown."""
    docs = settings.VAR / "reports" / "data-docs" / "index.html"
    files.write_text(docs, "<h1>Data Docs</h1>")
    files.write_text(settings.VAR / "secret.html", "secret")
    files.write_text(settings.VAR / "reports" / "notes.txt", "secret")
    status_page.write()
    link = next(str(one["href"]) for one in Read(ask("/status/").text).of("a") if "data-docs" in str(one.get("href")))
    assert (paths.status_page().parent / link).resolve() == docs
    assert ask(str(httpx.URL("http://router/status/").join(link).path)).text == "<h1>Data Docs</h1>"
    for path in (
        "/reports/../secret.html",
        "/reports/%2e%2e/secret.html",
        "/reports/notes.txt",
        "/reports/",
        "/reports/a%00.html",
    ):
        answer = ask(path)
        assert answer.status_code == 404
        assert "secret" not in answer.text.replace("secret.html", "")


def test_a_run_is_looked_at_where_prefect_is_now() -> None:
    """Its address was noted when the server had another port; without a server there is no link."""
    noted = "http://127.0.0.1:48733/runs/flow-run/0ec5380c"
    assert facts.Tools("http://127.0.0.1:4200", None, None).run(noted) == "http://127.0.0.1:4200/runs/flow-run/0ec5380c"
    assert facts.Tools(None, None, None).run(noted) is None
    assert facts.Tools("http://127.0.0.1:4200", None, None).run("") is None
