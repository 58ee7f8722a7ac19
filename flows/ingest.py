"""ingest: what lies in the landing zone is validated, and becomes a data version or waits in quarantine."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows import api, events, rows_check, wakes
from flows.as_task import as_task
from tasks import files, params, settings
from tasks.data import collect, commits, quarantine, versions


@flow(name="ingest", flow_run_name="ingest", description=__doc__)
def ingest() -> State[Any]:
    """Bring data/ and data.dvc up to what was delivered. Nothing delivered: nothing done."""
    said = params.load()
    with files.lock("ingest"):
        wakes.answer_waiting()
        commits.follow(said)
        if versions.behind():
            _catch_up()
        collected = _collect(said, get_run_logger().info, rows_check.of(said, get_run_logger().info))
        _report(said)
        version = _version()
        _push()
        if said.git.commit:
            _commit(said, log=get_run_logger().info)
        collect.clear(said, collected)
        _announce(said)
    kinds = {"withdrawn": collected.withdrawn, "known before": collected.outdated, "quarantined": collected.quarantined}
    refused = "".join(f"; {len(landed)} {what}" for what, landed in kinds.items() if landed)
    if version is None:
        return Completed(message=f"nothing new; the data version stays {versions.current()}{refused}")
    return Completed(message=f"{len(collected.accepted)} partitions accepted; data version {version}{refused}")


_catch_up = as_task(versions.catch_up, "bring the data version", retries=3)
_collect = as_task(collect.collect, "collect and validate what was delivered")
_version = as_task(versions.make, "make a data version")
_push = as_task(versions.push, "push it to the DVC remote", retries=3)
_commit = as_task(commits.publish, "commit data.dvc and dvc.lock, and push them")


def _announce(said: params.Params) -> None:
    """Wake who reads it, once for each data version, whoever made it: this run, an earlier one, or a person by hand."""
    version, note = versions.current(), settings.VAR / "memo" / "announced.json"
    told = files.read_state(note, dict[str, Any]())
    told = told if told.get("api") == _whom() else {}
    if version is None or told.get("version") == version:
        return
    now: dict[str, dict[str, str]] = {}
    for path, md5 in versions.tree().items():
        now.setdefault(path.partition("/")[0], {})[path] = md5
    datasets = {name: files.digest(listing) for name, listing in now.items()}
    changed = [name for name in datasets if told.get("datasets", {}).get(name) != datasets[name]]
    for model in sorted({model for name in changed for model in said.readers(name)}):
        # killed before the note is written, the next run tells again and wakes nobody twice; a version that comes
        # back, as after a revert, is told anew
        key = f"{model}: {version} after {told.get('at') or f'nothing, by {settings.ROOT}'}"
        if run := wakes.wake(f"train/{model}", {"model": model, "again": False, "if_due": True}, key):
            get_run_logger().info(f"{model} reads what changed: train/{model} is woken, {api.run_url(run)}")
    events.data_version(version, changed)
    files.write_json(
        note, {"version": version, "datasets": datasets, "api": _whom(), "at": datetime.now(UTC).isoformat()}
    )


def _whom() -> str:
    """Which server was told: by digest, as an address may hold a password."""
    return files.digest(os.environ["PREFECT_API_URL"])


def _report(said: params.Params) -> None:
    """Tell of what waits in quarantine and was not told of, whoever put it there: this run, or one that was killed."""
    note = settings.VAR / "memo" / "refused.json"
    told = files.read_state(note, dict[str, Any]())
    before = told["reports"] if told.get("api") == _whom() else {}
    there = quarantine.waiting(said.quarantine)
    news = [entry for entry in there if before.get(entry.id) != entry.seen]
    for entry in news:
        events.refused(entry.dataset, entry.partition, f"{entry.id} {entry.seen}", entry.reason)
    if news:
        rows = (f"| {entry.dataset} | {entry.partition} | {entry.reason} |" for entry in news)
        create_markdown_artifact(
            key="quarantine",
            markdown="\n".join(["| dataset | partition | why |", "| --- | --- | --- |", *rows]),
            description="Partitions that were refused; `python -m tasks quarantine` shows and retries them",
        )
    now = {entry.id: entry.seen for entry in there}
    if now != before:
        files.write_json(note, {"reports": now, "api": _whom()})
