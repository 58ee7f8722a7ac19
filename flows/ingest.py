"""ingest: what lies in the landing zone is validated, and becomes a data version or waits in quarantine."""

from __future__ import annotations

from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.prefect_support import announcements, api, events, triggers
from flows.prefect_support.as_task import as_task, exclusive
from tasks.data import git_sync, landing, quarantine, versions
from tasks.ground import files, params, paths, settings
from tasks.lifecycle import trial_prepare


@flow(name="ingest", flow_run_name="ingest", description=__doc__)
def ingest() -> State[Any]:
    """Bring data/ and data.dvc up to what was delivered. Nothing delivered: nothing done."""
    said = params.load()
    with exclusive("ingest"):
        triggers.coalesce_waiting()
        git_sync.follow(said)
        if versions.behind():
            _catch_up()
        collected = _collect(said, get_run_logger().info, trial_prepare.of(said, get_run_logger().info))
        _report(said)
        version = _version()
        _push()
        if said.git.commit:
            _commit(said, log=get_run_logger().info)
        landing.clear(said, collected)
        _announce(said)
        _forget_unused(said.keep_days)
    kinds = {"withdrawn": collected.withdrawn, "known before": collected.outdated, "quarantined": collected.quarantined}
    refused = "".join(f"; {len(landed)} {what}" for what, landed in kinds.items() if landed)
    if version is None:
        return Completed(message=f"nothing new; the data version stays {versions.current()}{refused}")
    return Completed(message=f"{len(collected.accepted)} partitions accepted; data version {version}{refused}")


_catch_up = as_task(versions.catch_up, "bring the data version", retries=3)
_collect = as_task(landing.collect, "collect and validate what was delivered")
_version = as_task(versions.make, "make a data version")
_push = as_task(versions.push, "push it to the DVC remote", retries=3)
_commit = as_task(git_sync.publish, "commit data.dvc and dvc.lock, and push them")


def _announce(said: params.Params) -> None:
    """Wake who reads it, once for each data version, whoever made it: this run, an earlier one, or a person by hand."""
    version, told = versions.current(), announcements.read()
    if version is None or told.get("version") == version:
        return
    now: dict[str, dict[str, str]] = {}
    for path, md5 in versions.tree().items():
        now.setdefault(path.partition("/")[0], {})[path] = md5
    datasets = {name: files.digest(listing) for name, listing in now.items()}
    changed = [name for name in datasets if told.get("datasets", {}).get(name) != datasets[name]]
    # killed before the note is written, the next run tells again and wakes nobody twice; a version that comes
    # back, as after a revert, is told anew
    key = f"{version} after {told.get('at') or f'nothing, by {settings.ROOT}'}"
    runs = [_wake(model, key) for model in sorted({model for name in changed for model in said.readers(name)})]
    events.data_version(version, changed)
    if UNKNOWN not in runs:  # who could not be woken is told by the next run
        announcements.write(version, datasets, [run for run in runs if run != PAUSED])


def _forget_unused(days: float) -> None:
    """What can be made again and nobody has asked for in a long time: memos, and releases brought from the registry."""
    gone = [path for folder in (paths.memos(), paths.champions()) for path in files.forget_unused(folder, days)]
    if gone:
        get_run_logger().info(f"{len(gone)} memos and releases that nobody used for {days:g} days are gone")


UNKNOWN, PAUSED = "unknown", "paused"


def _wake(model: str, key: str) -> str:
    """Wake the training of a model; gives the run, or why there is none."""
    title, tell = f"train/{model}", get_run_logger().info
    try:
        run = triggers.trigger(title, {"model": model, "again": False, "if_due": True}, f"{model}: {key}")
    except triggers.DeploymentPaused as error:
        tell(f"{model} reads what changed, but {error}")
        return PAUSED
    if run is None:
        tell(f"{model} reads what changed, but the Prefect server knows no {title}: it is told when it does")
        return UNKNOWN
    tell(f"{model} reads what changed: {title} is woken, {api.run_url(run)}")
    return run


def _report(said: params.Params) -> None:
    """Tell of what waits in quarantine and was not told of, whoever put it there: this run, or one that was killed."""
    note = paths.announced_refusals()
    told = files.read_state(note, dict[str, Any]())
    before = told["reports"] if told.get("api") == announcements.server_digest() else {}
    there = quarantine.waiting(said.quarantine)
    news = [entry for entry in there if before.get(entry.id) != entry.seen]
    told_of = [
        events.refused(entry.dataset, entry.partition, f"{entry.id} {entry.seen}", entry.reason) for entry in news
    ]
    if news:
        rows = (f"| {entry.dataset} | {entry.partition} | {entry.reason} |" for entry in news)
        create_markdown_artifact(
            key="quarantine",
            markdown="\n".join(["| dataset | partition | why |", "| --- | --- | --- |", *rows]),
            description="Partitions that were refused; `evergreen quarantine list` shows and retries them",
        )
    events.stored(told_of)
    now = {entry.id: entry.seen for entry in there}
    if now != before:
        files.write_json(note, {"reports": now, "api": announcements.server_digest()})
