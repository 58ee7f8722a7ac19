"""The data: its partitions and versions, and what was refused of it."""

from __future__ import annotations

from markupsafe import Markup

from deployments.status_page import charts, facts
from deployments.status_page.facts import Broken
from deployments.status_page.parts import empty, fill, part
from tasks.ground.words import many

LISTED = 10  # so many refused partitions are listed


@part("Data", "h2")
def section(quarantine: str) -> Markup:
    """Which data version there is, what it is made of, and what was refused."""
    return fill("data.html", parts=[_partitions(quarantine), _versions(), _refused(quarantine)])


@part("Partitions")
def _partitions(quarantine: str) -> Markup:
    """A cell per partition. One that was refused and delivered again is as good as its newest delivery."""
    datasets, refused = facts.partitions(), facts.refused(quarantine)
    cells = {dataset: dict.fromkeys(names, True) for dataset, names in datasets.items()}
    for delivery in refused or []:
        if delivery.dataset:
            cells.setdefault(delivery.dataset, {}).setdefault(delivery.partition, False)
    if not any(cells.values()):
        run = Markup("<code>make run</code> delivers the example's.")
        return empty("Partitions", "No partition has arrived yet. The landing zone takes them; " + run)
    revised = facts.revised()
    counted = [_counted(dataset, names, revised.get(dataset, 0)) for dataset, names in datasets.items()]
    waiting = many(len(refused), "delivery", "deliveries") if refused else "none"
    quarantined = "the quarantine is a bucket" if refused is None else f"{waiting} in quarantine"
    says = f"{'; '.join([*counted, quarantined])}."
    chart = charts.partitions({dataset: sorted(names.items()) for dataset, names in cells.items()}, says)
    return fill("partitions.html", says=says, chart=chart, has_refused=bool(refused))


def _counted(dataset: str, names: list[str], revised: int) -> str:
    covered = f", {names[0]} to {names[-1]}" if names else ""
    return f"{dataset}: {many(len(names), 'partition')}{covered}{f', {revised} revised' if revised else ''}"


@part("Data versions")
def _versions() -> Markup:
    """The version of now, those before in Git, and whether the models have been notified of it."""
    current = facts.version()
    if current is None:
        return empty("Data versions", "There is none yet: the flow ingest makes the first of what is delivered.")
    committed, announced = facts.committed(), facts.attempt(facts.announced)
    return fill(
        "versions.html",
        md5=current[0],
        since=current[1],
        committed=committed,
        is_committed=any(version.md5 == current[0] for version in committed),
        is_here=any(facts.partitions().values()),
        announced=announced,
        is_unknown=isinstance(announced, Broken),
    )


@part("Refused partitions")
def _refused(quarantine: str) -> Markup:
    return fill("refused.html", waiting=facts.refused(quarantine), listed=LISTED, quarantine=quarantine)
