"""ingest: what lies in the landing zone is validated, and becomes a data version or waits in quarantine."""

from __future__ import annotations

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, State

from tasks import files, params
from tasks.data import collect, versions


@flow(name="ingest", flow_run_name="ingest", description=__doc__)
def ingest() -> State:
    """Bring data/ and data.dvc up to what was delivered. Nothing delivered: nothing done."""
    said = params.load()
    with files.lock("ingest"):
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


_collect = task(collect.collect, name="collect and validate what was delivered", cache_policy=NO_CACHE)
_version = task(versions.make, name="make a data version", cache_policy=NO_CACHE)
_push = task(versions.push, name="push it to the DVC remote", cache_policy=NO_CACHE, retries=3, retry_delay_seconds=2)


def _report(collected: collect.Collected) -> None:
    rows = "\n".join(f"| {landed.dataset} | {landed.partition} | {landed.reason} |" for landed in collected.quarantined)
    create_markdown_artifact(
        key="quarantine",
        markdown=f"| dataset | partition | why |\n| --- | --- | --- |\n{rows}",
        description="Partitions that were refused; each lies in quarantine with its report",
    )
