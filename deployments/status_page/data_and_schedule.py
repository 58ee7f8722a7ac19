"""What is not one model's: the data, its versions and what was refused of it; and what happens next."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from deployments.status_page import charts, facts
from deployments.status_page.components import empty, ended, figure, keys, link, part, sentence, words
from deployments.status_page.facts import Broken, Plan
from deployments.status_page.markup import Markup, join, many, moment, tag

LISTED = 10
"""So many refused partitions are listed."""


# ── what happens next ─────────────────────────────────────────────────────────────────────────────


def ahead(plans: Mapping[str, Plan] | Broken, blocked: Sequence[str] = ()) -> Markup:
    """What stands in the way; each flow: when it runs next, and what its last run said."""
    if isinstance(plans, Broken):
        why = "Schedules and runs are kept there, and nothing starts until it is back."
        shown = tag("p", "Prefect does not answer: ", ended(plans.why), " ", why, class_="empty")
    elif not plans:
        shown = tag(
            "p",
            "Prefect knows no flow of Evergreen's. ",
            tag("code", "evergreen register"),
            " registers them.",
            class_="empty",
        )
    else:
        soonest = sorted(plans.values(), key=lambda plan: (plan.next is None, plan.next or "", plan.title))
        shown = tag("ul", (tag("li", _plan(plan)) for plan in soonest), class_="plain")
    in_the_way = words(tag("span", sentence(text), class_="no-mark") for text in blocked) if blocked else None
    return tag("section", tag("h2", "What happens next", id="next"), in_the_way, shown, aria_labelledby="next")


def _plan(plan: Plan) -> Markup:
    return tag(
        "div", tag("div", link(plan.url, plan.title)), tag("div", _due(plan)), tag("div", _last(plan)), class_="rows"
    )


def _due(plan: Plan) -> Markup:
    if plan.paused:
        return tag("span", "paused", class_="no-mark")
    if plan.running:
        return join(link(plan.running, "runs now"))
    if plan.next:
        return join("next ", moment(plan.next))
    if plan.cron:
        return tag("span", f"nothing is planned, though its schedule is {plan.cron}", class_="no-mark")
    return tag("span", "when somebody starts it", class_="quiet")


def _last(plan: Plan) -> Markup:
    if plan.last is None:
        return tag("span", "did not run lately", class_="quiet small")
    ended = tag("span", _in_words(plan.last.name), class_=None if plan.last.state == "COMPLETED" else "no-mark")
    said = f": {plan.last.message}" if plan.last.message else ""
    return tag(
        "span", link(plan.last.url, "last run"), " ", moment(plan.last.time), ", ", ended, said, class_="small quiet"
    )


def _in_words(state: str) -> str:
    """NotDue: not due."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", state).lower()


# ── data ──────────────────────────────────────────────────────────────────────────────────────────


def data(quarantine: str) -> Markup:
    """Which data version there is, what it is made of, and what was refused."""
    shown = [
        part("Partitions", lambda: _partitions(quarantine)),
        part("Data versions", _versions),
        part("Refused partitions", lambda: _refused(quarantine)),
    ]
    heading = tag("h2", "Data", id="data")
    return tag("section", heading, tag("div", shown, class_="pictures"), aria_labelledby="data")


def _partitions(quarantine: str) -> Markup:
    """A cell per partition. One that was refused and delivered again is as good as its newest delivery."""
    there, refused = facts.partitions(), facts.refused(quarantine)
    waiting = refused or []
    cells = {dataset: dict.fromkeys(names, True) for dataset, names in there.items()}
    for one in waiting:
        if one.dataset:
            cells.setdefault(one.dataset, {}).setdefault(one.partition, False)
    if not any(cells.values()):
        run = tag("code", "make run")
        return empty(
            "Partitions", "No partition has arrived yet. The landing zone takes them; ", run, " delivers the example's."
        )
    revised = facts.revised()
    counted = [
        f"{dataset}: {many(len(names), 'partition')}{f', {names[0]} to {names[-1]}' if names else ''}"
        f"{f', {revised[dataset]} revised' if dataset in revised else ''}"
        for dataset, names in there.items()
    ]
    if refused is None:
        quarantined = "the quarantine is a bucket"
    else:
        quarantined = f"{many(len(waiting), 'delivery', 'deliveries') if waiting else 'none'} in quarantine"
    says = f"{'; '.join([*counted, quarantined])}."
    signs = [("partition", "in the data version"), ("refused", "refused, in quarantine")]
    return figure(
        "Partitions",
        says,
        charts.partitions({dataset: sorted(names.items()) for dataset, names in cells.items()}, says),
        keys(*(signs if waiting else signs[:1])),
    )


def _versions() -> Markup:
    now = facts.version()
    if now is None:
        return empty("Data versions", "There is none yet: the flow ingest makes the first of what is delivered.")
    md5, since = now
    committed = facts.committed()
    lines = (
        join(
            tag("code", one.md5[:10]),
            f" of {many(one.nfiles, 'file')}, " if one.nfiles is not None else ", ",
            moment(one.time),
            f", commit {one.commit}: {one.subject}",
        )
        for one in committed
    )
    is_committed = any(one.md5 == md5 for one in committed)
    is_here = any(facts.partitions().values())
    return figure(
        "Data versions",
        join(
            tag("code", md5[:10]),
            " since ",
            moment(since.isoformat()),
            ". ",
            _told(md5),
            "" if is_committed else " It is not committed to Git.",
            None if is_here else join(" Its files are not here: ", tag("code", "evergreen data"), " brings them."),
        ),
        words(lines) or tag("p", "The history of this branch has no other.", class_="quiet"),
    )


def _told(md5: str) -> str:
    told = facts.attempt(facts.announced)
    if isinstance(told, Broken):
        return f"Whether the models were told of it cannot be read: {told.why}."
    return "The models that read it were told." if told == md5 else "The next run of ingest tells the models of it."


def _refused(quarantine: str) -> Markup:
    waiting = facts.refused(quarantine)
    if waiting is None:
        return empty(
            "Refused partitions", "The quarantine is a bucket; Prefect's artifact «quarantine» lists what is in it."
        )
    if not waiting:
        return empty("Refused partitions", "None waits in quarantine.")
    more = f"And {len(waiting) - LISTED} more." if len(waiting) > LISTED else None
    return figure(
        "Refused partitions",
        join(
            f"{many(len(waiting), 'delivery waits', 'deliveries wait')} in quarantine; ",
            tag("code", "evergreen quarantine list"),
            " shows them, tries again and closes.",
        ),
        words(_refusal(one) for one in waiting[:LISTED]),
        tag("p", more, class_="quiet") if more else None,
    )


def _refusal(one: facts.Refused) -> Any:
    return join(
        tag("span", f"{one.dataset} {one.partition}".strip(), class_="no-mark"),
        ", ",
        moment(one.time.isoformat()),
        f": {sentence(one.reason)} ",
        tag(
            "span",
            "What to do: ",
            sentence(one.todo),
            " ",
            tag("code", f"{one.folder}/report.md"),
            class_="quiet small",
        ),
    )
