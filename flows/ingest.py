"""ingest: validates what lies in the landing zone, and makes a data version of it or quarantines it."""

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
from tasks.ground.words import listed, many
from tasks.lifecycle import trial_prepare


@flow(name="ingest", flow_run_name="ingest", description=__doc__)
def ingest() -> State[Any]:
    """Bring data/ and data.dvc up to what was delivered. Nothing delivered: nothing done."""
    config = params.load()
    with exclusive("ingest"):
        triggers.coalesce_waiting()
        git_sync.follow(config)
        if versions.behind():
            _catch_up()
        collected = _collect(config, get_run_logger().info, trial_prepare.check_of(config, get_run_logger().info))
        _report(config)
        version = _version()
        _push()
        if config.git.commit:
            _commit(config, log=get_run_logger().info)
        landing.clear(config, collected)
        _announce(config)
        _forget_unused(config.keep_days)
    kinds = {"withdrawn": collected.withdrawn, "outdated": collected.outdated, "quarantined": collected.quarantined}
    refused = "".join(f"; {len(landed)} {what}" for what, landed in kinds.items() if landed)
    if version is None:
        return Completed(message=f"nothing new; the data version stays {versions.current()}{refused}")
    return Completed(message=f"{many(len(collected.accepted), 'partition')} accepted; data version {version}{refused}")


_catch_up = as_task(versions.catch_up, "bring the data version", retries=3)
_collect = as_task(landing.collect, "collect and validate what was delivered")
_version = as_task(versions.make, "make a data version")
_push = as_task(versions.push, "push it to the DVC remote", retries=3)
_commit = as_task(git_sync.publish, "commit data.dvc and dvc.lock, and push them")


def _announce(config: params.Params) -> None:
    """Trigger the trainings that read a new data version, once, whoever made it: a flow run, or a person by hand."""
    version, announced = versions.current(), announcements.read()
    if version is None or announced.get("version") == version:
        return
    listings: dict[str, dict[str, str]] = {}
    for path, md5 in versions.tree().items():
        listings.setdefault(path.partition("/")[0], {})[path] = md5
    datasets = {name: files.digest(listing) for name, listing in listings.items()}
    changed = [name for name in datasets if announced.get("datasets", {}).get(name) != datasets[name]]
    # killed before the note is written, the next run announces again and triggers nothing twice; a version that comes
    # back, as after a revert, is announced anew
    key = f"{version} after {announced.get('at') or f'nothing, by {settings.ROOT}'}"
    readers = sorted({model for name in changed for model in config.readers(name)})
    runs = [_trigger(model, key) for model in readers]
    if waiting := [model for model, run in zip(readers, runs, strict=True) if run == UNKNOWN]:
        get_run_logger().info(
            f"{listed(waiting, 3)} read what changed; with `evergreen up` an ingest triggers their trainings, and no "
            f"training is registered with this Prefect server"
        )
    events.data_version(version, changed)
    if UNKNOWN not in runs:  # the next run tries again
        announcements.write(version, datasets, [run for run in runs if run != PAUSED])


def _forget_unused(days: float) -> None:
    """Remove memos and fetched releases that nothing has used for so long: they can be made again."""
    removed = [path for folder in (files.memos(), paths.champions()) for path in files.forget_unused(folder, days)]
    if removed:
        get_run_logger().info(f"{len(removed)} memos and releases that were not used for {days:g} days are gone")


UNKNOWN, PAUSED = "unknown", "paused"


def _trigger(model: str, key: str) -> str:
    """Trigger the training of a model; gives the run, or why there is none."""
    title, log = f"train/{model}", get_run_logger().info
    try:
        run = triggers.trigger(title, {"model": model, "again": False, "if_due": True}, f"{model}: {key}")
    except triggers.DeploymentPaused as error:
        log(f"{model} reads what changed, but {error}")
        return PAUSED
    if run is None:
        return UNKNOWN
    log(f"{model} reads what changed: {title} is triggered, {api.run_url(run)}")
    return run


def _report(config: params.Params) -> None:
    """Report quarantined deliveries that were not reported yet, also those of a run that was killed."""
    note = files.read_state(paths.announced_refusals(), dict[str, Any]())
    before = note["reports"] if note.get("api") == announcements.server_digest() else {}
    entries = quarantine.waiting(config.quarantine)
    news = [entry for entry in entries if before.get(entry.id) != entry.seen]
    sent = [events.refused(entry.dataset, entry.partition, f"{entry.id} {entry.seen}", entry.reason) for entry in news]
    if news:
        rows = (f"| {entry.dataset} | {entry.partition} | {entry.reason} |" for entry in news)
        create_markdown_artifact(
            key="quarantine",
            markdown="\n".join(["| dataset | partition | why |", "| --- | --- | --- |", *rows]),
            description="Partitions that were refused; `evergreen quarantine list` shows and retries them",
        )
    events.stored(sent)
    now = {entry.id: entry.seen for entry in entries}
    if now != before:
        files.write_json(paths.announced_refusals(), {"reports": now, "api": announcements.server_digest()})
