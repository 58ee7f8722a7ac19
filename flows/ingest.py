"""ingest: what lies in the landing zone is validated, and becomes a data version or waits in quarantine."""

from __future__ import annotations

from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.as_task import as_task
from tasks import files, params
from tasks.data import collect, versions


@flow(name="ingest", flow_run_name="ingest", description=__doc__)
def ingest() -> State[Any]:
    """Bring data/ and data.dvc up to what was delivered. Nothing delivered: nothing done."""
    said = params.load()
    with files.lock("ingest"):
        if versions.lacking():
            _pull()
        collected = _collect(said, get_run_logger().info)
        version = _version()
        _push()
        collect.clear(said, collected)
    if collected.quarantined:
        _report(collected)
    refused = f"; {len(collected.quarantined)} quarantined" if collected.quarantined else ""
    if version is None:
        return Completed(message=f"nothing new; the data version stays {versions.current()}{refused}")
    return Completed(message=f"{len(collected.accepted)} partitions accepted; data version {version}{refused}")


_pull = as_task(versions.pull, "bring the data version", retries=3)
_collect = as_task(collect.collect, "collect and validate what was delivered")
_version = as_task(versions.make, "make a data version")
_push = as_task(versions.push, "push it to the DVC remote", retries=3)


def _report(collected: collect.Collected) -> None:
    rows = "\n".join(f"| {landed.dataset} | {landed.partition} | {landed.reason} |" for landed in collected.quarantined)
    create_markdown_artifact(
        key="quarantine",
        markdown=f"| dataset | partition | why |\n| --- | --- | --- |\n{rows}",
        description="Partitions that were refused; each lies in quarantine with its report",
    )
