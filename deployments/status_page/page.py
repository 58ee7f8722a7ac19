"""The whole page: its head, its parts in their order, its foot; written whole or not at all."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from deployments.orchestration import blockers
from deployments.status_page import components, data_and_schedule, facts, models, monitoring
from deployments.status_page.facts import Broken, Model, Tools
from deployments.status_page.markup import Markup, join, many, tag
from deployments.status_page.style import IN_PAGE, SCRIPT, STYLE
from tasks.ground import files, params, paths

REPORTS = "../reports/data-docs/index.html"
"""From the page to the Data Docs: both in the folder var and as the router shows them."""


def path() -> Path:
    """Where the page is written."""
    return paths.status_page()


def write() -> Path:
    """Write the page as things are now; gives where it is."""
    files.write_text(path(), render(datetime.now(UTC)))
    return path()


def render(now: datetime) -> str:
    """The page. What cannot be read is told in its place."""
    tools, said = facts.tools(), facts.attempt(params.load)
    if isinstance(said, Broken):
        sentence, is_bad = "params.yaml cannot be read", True
        main = tag("section", components.broken("The models", said.why, "h2"))
    else:
        plans, blocked = _plans(tools), _blocked(tools, said)
        read = [Model.read(name, section) for name, section in said.models.items()]
        sentence, is_bad = headline(read, blocked)
        main = join(
            monitoring.alarms(read),
            [models.model(one, tools, plans) for one in read],
            components.part("What happens next", lambda: data_and_schedule.ahead(plans, blocked), "h2"),
            components.part("Data", lambda: data_and_schedule.data(said.quarantine), "h2"),
        )
    return "<!doctype html>\n" + tag(
        "html", _head(sentence, is_bad), _body(sentence, is_bad, main, tools, now), lang="en"
    )


def _plans(tools: Tools) -> dict[str, facts.Plan] | Broken:
    ui = tools.prefect
    return facts.attempt(lambda: facts.plans(ui)) if ui else Broken("start the platform (make up)")


def _blocked(tools: Tools, said: params.Params) -> list[str]:
    """What stands in the way. That Prefect does not answer stands elsewhere on the page."""
    found = facts.attempt(lambda: blockers.find(said)) if tools.prefect else []
    return [found.why] if isinstance(found, Broken) else found


def headline(read: list[Model], blocked: list[str]) -> tuple[str, bool]:
    """All of it in a sentence, and whether somebody should look."""
    open_ = [(one.name, alarm) for one in read for alarm in one.alarms]
    if open_:
        name, alarm = open_[0]
        newest = f"{name}, {alarm.get('kind', 'alarm')}: {alarm.get('what', '')}"
        return f"{many(len(open_), 'alarm is', 'alarms are')} open{'. ' if len(open_) > 1 else ': '}{newest}", True
    if blocked:
        more = f", and {many(len(blocked) - 1, 'thing')} more" if len(blocked) > 1 else ""
        return f"{blocked[0][:1].upper()}{blocked[0][1:]}{more}", True
    if unread := [one.name for one in read if Broken in (type(one.serving), type(one.report))]:
        return f"What is known of {' and '.join(unread)} cannot be read", True
    serve, idle = [one for one in read if one.live], [one.name for one in read if not one.live]
    if not serve:
        return "Nothing serves yet", False
    said = f"{many(len(serve), 'model serves', 'models serve')}"
    said += f"; {' and '.join(idle)} {'does' if len(idle) == 1 else 'do'} not yet" if idle else ""
    return (f"{said}, no alarm is open" if all(one.report for one in serve) else said), False


def _head(sentence: str, is_bad: bool) -> Markup:
    colour = "#c0432a" if is_bad else "#2c8a70"
    sign = "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'>"
    sign += f"<circle cx='8' cy='8' r='7' fill='{colour}'/></svg>"
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=IN_PAGE),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{sentence} – Evergreen"),
        tag("link", rel="icon", href=f"data:image/svg+xml,{quote(sign)}"),
        tag("style", Markup(STYLE)),
    )


def _body(sentence: str, is_bad: bool, main: Markup, tools: Tools, now: datetime) -> Markup:
    written = tag("time", f"{now:%Y-%m-%d %H:%M:%S} UTC", id="written", datetime=f"{now:%Y-%m-%dT%H:%M:%SZ}")
    old = "Nobody has written this page for more than three minutes. Is the platform up (make up)?"
    return tag(
        "body",
        tag("a", "Skip to the models", class_="skip", href="#main"),
        tag(
            "header",
            tag("h1", "Evergreen"),
            tag("p", sentence, id="headline", class_="bad" if is_bad else None, role="status"),
            _links(tools),
        ),
        tag("main", main, id="main", tabindex=-1, data_state=files.digest(str(main))[:16]),
        tag(
            "footer",
            tag("p", "As of ", written, ". ", tag("span", old, id="old", hidden=True, class_="no-mark")),
            tag(
                "p",
                tag("button", "Keep this page as it is", id="hold", type="button", aria_pressed="false", hidden=True),
            ),
        ),
        tag("script", Markup(SCRIPT)),
    )


def _links(tools: Tools) -> Markup:
    """Where to go on; what does not answer is named without a link."""
    has_docs = (paths.reports() / "data-docs" / "index.html").exists()
    shown = [
        _tool(tools.prefect, "Prefect", "flows and runs"),
        _tool(tools.mlflow, "MLflow", "models and metrics"),
        components.link(REPORTS, "Data Docs") if has_docs else join("Data Docs (evergreen reports draws them)"),
        _tool(tools.router and f"{tools.router}/openapi.json", "API", "what may be asked"),
    ]
    return tag("nav", tag("ul", (tag("li", one) for one in shown)), aria_label="Tools")


def _tool(url: str | None, name: str, what: str) -> Markup:
    return join(components.link(url, name), tag("span", f" {what}" if url else " does not answer", class_="small"))
