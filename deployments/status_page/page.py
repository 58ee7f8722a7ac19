"""The whole page: its head, its parts in their order, its foot; written whole or not at all, and kept new."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from markupsafe import Markup

from deployments.orchestration import blockers
from deployments.status_page import assets, data, facts, model_card, models, monitoring, plans
from deployments.status_page.facts import Broken, ModelFacts, Tools
from deployments.status_page.parts import broken, fill, part
from deployments.status_page.plans import Plan
from tasks.ground import files, params, paths
from tasks.ground.errors import WorldError
from tasks.ground.words import many

FRESH_SECONDS = 60.0  # the page is written again after so long without a change: what Prefect plans is in no file


def write() -> Path:
    """Write the page as things are now; gives where it is."""
    now = datetime.now(UTC)
    path, text = paths.status_page(), render(now)
    try:
        files.write_text(path, text)
        _write_cards(path.parent, now)
    except OSError as error:
        raise WorldError(f"the status page cannot be written: {error}") from None
    return path


def _write_cards(folder: Path, now: datetime) -> None:
    """A page for each model, for people who do not build it; those of models that are gone go."""
    config = facts.attempt(params.load)
    names = [] if isinstance(config, Broken) else list(config.models)
    if not isinstance(config, Broken):
        for name, section in config.models.items():
            files.write_text(paths.model_card(name), model_card.render(ModelFacts.read(name, section), now))
        for left in folder.glob("*.html"):
            if left.stem not in (*names, "index"):
                files.remove(left)


def render(now: datetime) -> str:
    """The page. What cannot be read says why in its place."""
    tools, config = facts.tools(), facts.attempt(params.load)
    if isinstance(config, Broken):
        sentence, is_bad = "params.yaml cannot be read", True
        main = broken("The models", config.why, "h2")
    else:
        ui = tools.prefect
        planned = facts.attempt(lambda: plans.read(ui)) if ui else Broken("start the platform (evergreen up)")
        blocked = _blocked(tools, config)
        read = [ModelFacts.read(name, section) for name, section in config.models.items()]
        sentence, is_bad = headline(read, blocked)
        sections = [models.section(model, tools, planned) for model in read]
        main = Markup("\n").join(
            [monitoring.alarms(read), *sections, upcoming(planned, blocked), data.section(config.quarantine)]
        )
    return fill(
        "page.html",
        sentence=sentence,
        is_bad=is_bad,
        main=main,
        digest=files.digest(str(main))[:16],
        tools=tools,
        has_data_docs=(paths.reports() / "data-docs" / "index.html").exists(),
        now=now,
        assets=assets,
    )


def _blocked(tools: Tools, config: params.Params) -> list[str]:
    """What keeps flows from running. That Prefect does not answer stands elsewhere on the page."""
    reasons = facts.attempt(lambda: blockers.find(config)) if tools.prefect else []
    return [reasons.why] if isinstance(reasons, Broken) else reasons


@part("What happens next", "h2")
def upcoming(planned: Mapping[str, Plan] | Broken, blocked: Sequence[str]) -> Markup:
    """What keeps flows from running; each flow: when it runs next, and how its last run ended."""
    silent = planned.why if isinstance(planned, Broken) else ""
    known = [] if isinstance(planned, Broken) else planned.values()
    soonest = sorted(known, key=lambda plan: (plan.next is None, plan.next or "", plan.title))
    return fill("upcoming.html", silent=silent, plans=soonest, blocked=blocked)


def headline(models: Sequence[ModelFacts], blocked: Sequence[str]) -> tuple[str, bool]:
    """The page in a sentence, and whether somebody should look."""
    alarms = [(model.name, alarm) for model in models for alarm in model.alarms]
    if alarms:
        name, alarm = alarms[0]
        newest = f"{name}, {alarm.get('kind', 'alarm')}: {alarm.get('what', '')}"
        return f"{many(len(alarms), 'alarm is', 'alarms are')} open{'. ' if len(alarms) > 1 else ': '}{newest}", True
    if blocked:
        more = f", and {many(len(blocked) - 1, 'thing')} more" if len(blocked) > 1 else ""
        return f"{blocked[0][:1].upper()}{blocked[0][1:]}{more}", True
    if unread := [model.name for model in models if Broken in (type(model.serving), type(model.report))]:
        return f"The state of {' and '.join(unread)} cannot be read", True
    live, idle = [model for model in models if model.live], [model.name for model in models if not model.live]
    if not live:
        return "No model is live yet", False
    sentence = f"{many(len(live), 'model is', 'models are')} live"
    sentence += f"; {' and '.join(idle)} {'is' if len(idle) == 1 else 'are'} not yet" if idle else ""
    return (f"{sentence}, no alarm is open" if all(model.report for model in live) else sentence), False


@dataclass
class PageRefresher:
    """Writes the page again when a file that it shows has changed, and every minute."""

    clock: Callable[[], float] = time.monotonic
    seen: object = None
    quarantine: str | None = None  # as params.yaml had it when the page was written last; params.yaml is looked at too
    written: float = float("-inf")

    def look(self) -> None:
        """Look once."""
        now = self.clock()
        if facts.state_of_files(self.quarantine) == self.seen and now - self.written < FRESH_SECONDS:
            return
        config = facts.attempt(params.load)
        self.quarantine = None if isinstance(config, facts.Broken) else config.quarantine
        seen = facts.state_of_files(self.quarantine)  # before it is read: what changes meanwhile is seen next time
        write()
        self.seen, self.written = seen, now
