"""The commands of `python -m tasks`: thin words around the steps, and around what a person asks of any wing."""

from __future__ import annotations

import argparse
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from tasks import steps
from tasks.ground import files, paths, settings
from tasks.ground.errors import Mistake


def add_to(parser: argparse.ArgumentParser) -> None:
    """Give the parser a subcommand per step of the graph, and those a person uses."""
    kinds = parser.add_subparsers(required=True, metavar="command")
    for step in steps.STEPS:
        one = _command(kinds, step, run_step, f"the stage {step} of dvc.yaml")
        one.set_defaults(step=step)
        if step != "environment":
            one.add_argument("model")
    _command(kinds, "env", env, "print the project's environment as shell commands")
    _command(kinds, "why", why, "for each stage whether it would run now, and because of what").add_argument("model")
    back = _command(kinds, "rollback", rollback, "put the former champion back")
    back.add_argument("model")
    back.add_argument(
        "--to", type=int, metavar="VERSION", help="a version of the registry, instead of the former champion"
    )
    back.add_argument("--reason", default="", help="is recorded with the version that is withdrawn")
    forward = _command(kinds, "promote", promote, "a person's word: the challenger that waits for it becomes champion")
    forward.add_argument("model")
    forward.add_argument("--version", type=int, help="a version of the registry, instead of the challenger")
    _command(kinds, "history", history, "every version of a model: from what, judged how, champion when").add_argument(
        "model"
    )
    listed = _command(kinds, "alarms", alarms, "what is not as it was promised, and since when")
    listed.add_argument("model")
    listed.add_argument("--all", action="store_true", help="those too that are over")
    seen = _command(kinds, "acknowledge", acknowledge, "say that somebody has seen an alarm, and what of it")
    seen.add_argument("model")
    seen.add_argument("key", help="as `evergreen alarms` names it")
    seen.add_argument("--note", default="", help="is kept with it")
    gone = _command(kinds, "forget", forget, "take rows out of the prediction log and of all that is made of it")
    gone.add_argument("model")
    gone.add_argument("--time-after", metavar="TIME", help="asked later than this, as the client said")
    gone.add_argument("--time-before", metavar="TIME", help="asked earlier than this")
    gone.add_argument("--prediction-id", action="append", default=[], metavar="ID", help="this prediction; repeatable")
    gone.add_argument("--key", action="append", default=[], help="of this key of a row or a request; repeatable")
    one = _command(kinds, "keys", keys, "API keys of what serves: list them, add one, take one back")
    one.add_argument("--add", metavar="NAME", help="make a key for somebody; it is shown once")
    one.add_argument("--remove", metavar="NAME", help="take it back, at once; without the last one nobody is answered")
    one.add_argument("--open", action="store_true", help="answer whoever reaches the port; no key may be left")
    built = _command(kinds, "image", image, "write the build context of a release's image, and print how it is built")
    built.add_argument("model")
    built.add_argument("--version", type=int, help="a version of the registry, instead of the champion")
    built.add_argument("--to", type=Path, metavar="FOLDER", help="instead of var/images/<model>/<candidate>")
    written = _command(kinds, "manifests", manifests, "write a model's Kubernetes manifests, to be read and committed")
    written.add_argument("model")
    written.add_argument("--images", required=True, help="where images are, such as registry.example/evergreen")
    written.add_argument("--to", type=Path, default=Path("deployments/kubernetes/models"), metavar="FOLDER")
    _command(kinds, "data", data, "bring the files of the data version that data.dvc names")
    _add_of_data(kinds)
    _command(kinds, "reports", reports, "draw the exploratory report of each dataset and the Data Docs")


def _add_of_data(kinds: Any) -> None:
    """The subcommands of what a person does about partitions."""
    back = _command(kinds, "revert", revert, "make a former revision of a partition count again")
    back.add_argument("dataset")
    back.add_argument("partition")
    back.add_argument("--to", type=int, metavar="NUMBER", help="the revision, instead of the one before the newest")
    out = _command(kinds, "withdraw", withdraw, "take a partition out of the data; revert brings it back")
    out.add_argument("dataset")
    out.add_argument("partition")
    told = _command(kinds, "revisions", list_revisions, "the partitions that were revised: how often, and what changed")
    told.add_argument("dataset", nargs="?")
    told.add_argument("partition", nargs="?")
    joined = _command(kinds, "merge", merge, "after `git merge` stopped at data.dvc: the data version of both branches")
    for side in ("ours", "theirs"):
        which = (
            f"a partition (<dataset>/<partition>) that both changed, and of which {side} counts; may stand repeatedly"
        )
        joined.add_argument(f"--{side}", action="append", default=[], metavar="PARTITION", help=which)
    kept = _command(kinds, "quarantine", list_quarantine, "the deliveries that were refused: list, show, retry, close")
    kept.add_argument("--all", action="store_true", help="list those too that are closed")
    doing = kept.add_subparsers(metavar="what")
    shown = _command(doing, "show", show_refused, "print the report of a refused delivery")
    shown.add_argument("name", help="as the list names it")
    again = _command(doing, "retry", retry_refused, "put refused files back into the landing zone, for the next ingest")
    again.add_argument("names", nargs="*", help="as the list names them; none: all that wait")
    seen = _command(doing, "close", close_refused, "say that refusals are seen to; the files stay")
    seen.add_argument("names", nargs="+", help="as the list names them")


def run_step(step: str, model: str | None = None) -> None:
    """Run one step, as a stage of `dvc repro` does. What was packaged is tracked in MLflow."""
    steps.run(step, [model] if model else [])
    if step == "package" and model:
        from tasks.release.package import package
        from tasks.release.registry import tracking

        run = tracking.track(model, settings.BUILD / model / "release", settings.BUILD / model, package.measured(model))
        print(f"tracked in MLflow: {run}")


def env() -> None:
    """Print what `make shell` exports."""
    print(settings.exports())


def why(model: str) -> None:
    """Print for each stage whether it would run, and the first input that differs."""
    from tasks.ground import params
    from tasks.training import dvc_graph

    params.load().model(model)
    reasons = dvc_graph.reasons(model)
    for stage, reason in reasons.items():
        print(f"{stage:<28} {f'would run: {reason}' if reason else 'unchanged'}")
    if not any(reasons.values()):
        print(f"{model}: nothing to do, no stage has an input that changed")
    for said in files.lines(paths.decisions(model))[-1:]:
        print(f"the retrain policy was last asked {said['at']}: {said['why']}")


def rollback(model: str, to: int | None, reason: str) -> None:
    """Put an earlier champion back."""
    from tasks.ground import params
    from tasks.release.registry import registry

    params.load().model(model)
    print(registry.rollback(model, to=to, reason=reason))


def promote(model: str, version: int | None) -> None:
    """Make a version champion that its verdict promotes, and that waits for a person's word."""
    from tasks.ground import params
    from tasks.release.registry import registry

    params.load().model(model)
    print(f"{registry.promote_by_hand(model, version)} is champion")


def history(model: str) -> None:
    """Print the versions of a model."""
    from tasks.ground import params
    from tasks.release.registry import registry

    params.load().model(model)
    for entry in registry.history(model):
        named = f" ({', '.join(entry.aliases)})" if entry.aliases else ""
        print(f"version {entry.version}{named}: candidate {entry.candidate}, made {entry.created}, run {entry.run_id}")
        print(f"  data       {entry.data_version}")
        print(f"  verdict    {entry.summary or 'none'}")
        if entry.on_hold:
            print(f"  waits      {entry.on_hold}")
        if entry.promoted_by is not None:
            print(f"  promoted   by verdict {entry.promoted_by}")
        for period in entry.champion:
            print(f"  champion   {period}")
        if entry.withdrawn is not None:
            print(f"  withdrawn  {entry.withdrawn}")
        if entry.files_removed is not None:
            print(f"  files      removed {entry.files_removed}: it never was champion")


def alarms(model: str, all: bool) -> None:  # noqa: A002 - the name of the option
    """Print the alarms of a model."""
    from tasks.ground import params
    from tasks.monitoring import alarms as kept

    params.load().model(model)
    shown = [one for one in kept.read(model) if all or one["closed"] is None]
    print("\n".join(map(kept.in_words, shown)) or f"{model}: no alarm is open")


def acknowledge(model: str, key: str, note: str) -> None:
    """Say that somebody has seen an alarm."""
    from tasks.ground import params
    from tasks.monitoring import alarms as kept

    params.load().model(model)
    print(kept.in_words(kept.acknowledge(model, key, note)))


def forget(
    model: str, time_after: str | None, time_before: str | None, prediction_id: list[str], key: list[str]
) -> None:
    """Take out the rows of which everything holds that is given."""
    from tasks.ground import params
    from tasks.prediction_log import prediction_log

    zone = params.load().model(model).timezone
    after, before = _moment("--time-after", time_after, zone), _moment("--time-before", time_before, zone)
    count = prediction_log.forget(model, after, before, prediction_id, key)
    if not count:
        print(f"{model}: no row in the log is so, nothing was changed")
        return
    print(
        f"{model}: {count:,} rows are forgotten: nobody reads them any more. They are out of the Parquet files of the "
        f"log; lines that a replica still writes to lose them when they are compacted. The next look of the monitor "
        f"makes day sums, joined labels and weeks again from what is left."
    )


def _moment(option: str, text: str | None, zone: str) -> datetime | None:
    """A time; where it says no zone, of the model's."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Mistake(f"{option} {text!r} is no time: say it as 2027-01-31, or 2027-01-31T18:00:00+01:00") from None
    return found if found.tzinfo else found.replace(tzinfo=ZoneInfo(zone))


def keys(add: str | None, remove: str | None, open: bool) -> None:  # noqa: A002 - the option's name
    """Change the API keys, or list their names; and say who is answered."""
    from deployments.serving import api_keys as held

    if remove:
        held.remove(remove)
    if open:
        held.open_to_all()
    if add:
        print(held.add(add))
        print(f"This is the key of {add}. It is shown only now. Requests carry it as `authorization: Bearer <key>`")
    names = held.names()
    if names and not add:
        print("\n".join(names))
    elif not names and held.are_required():
        print("there is no key, and nobody is answered: --add NAME makes one, --open answers whoever reaches the port")
    elif not names:
        print("no key is needed: whoever reaches the port (of 127.0.0.1) is answered. --add NAME changes that")


def image(model: str, version: int | None, to: Path | None) -> None:
    """Write what an image of a release is built of."""
    from tasks.ground import params
    from tasks.release.cluster import image

    params.load().model(model)
    folder, candidate = image.of_version(model, version, to)
    tag = image.reference("<registry>", model, candidate)
    print(f"docker build --file {folder}/Containerfile --tag {tag} {folder}")


def manifests(model: str, images: str, to: Path) -> None:
    """Write the manifests of a model, at its champion."""
    from tasks.ground import params
    from tasks.release.cluster import image, manifests

    params.load().model(model)
    number, candidate = image.chosen(model)
    print(manifests.write(model, candidate, number, images, to))


def data() -> None:
    """Bring the data version that data.dvc names: from the remote, or from the upstream again."""
    from tasks.data import versions
    from tasks.ground import params

    versions.restore_from_upstream(params.load(), print)


def revert(dataset: str, partition: str, to: int | None) -> None:
    """Make a former revision count again."""
    from tasks.data import corrections
    from tasks.ground import params

    print(corrections.revert(params.load(), dataset, partition, to))


def withdraw(dataset: str, partition: str) -> None:
    """Take a partition out."""
    from tasks.data import corrections
    from tasks.ground import params

    print(corrections.withdraw(params.load(), dataset, partition))


def list_revisions(dataset: str | None, partition: str | None) -> None:
    """Print the partitions that were revised."""
    from tasks.data import corrections
    from tasks.ground import params

    print("\n".join(corrections.listed(params.load(), dataset, partition)) or "no partition was ever revised")


def merge(ours: list[str], theirs: list[str]) -> None:
    """Join both sides of a merge that stopped at data.dvc."""
    from tasks.data import merge

    print(merge.merge(ours, theirs))


def list_quarantine(all: bool) -> None:  # noqa: A002 - the name of the option
    """Print what waits in quarantine."""
    from tasks.data import quarantine
    from tasks.ground import params

    for entry in quarantine.refused(params.load().quarantine):
        if all or entry.closed is None:
            print(f"{entry.id}  {entry.time:%Y-%m-%d %H:%M}  {entry.file}: {entry.closed or entry.reason}")
    print("`evergreen quarantine show <name>` prints the report, `… retry` tries again, `… close` takes it off")


def show_refused(name: str, **_: Any) -> None:
    """Print the report of a refused delivery."""
    from tasks.data import quarantine
    from tasks.ground import params

    print(quarantine.page(params.load(), name))


def retry_refused(names: list[str], **_: Any) -> None:
    """Put refused files back into the landing zone."""
    from tasks.data import quarantine
    from tasks.ground import params

    for entry in quarantine.retry(params.load(), names):
        print(f"{entry.id} is back in the landing zone; the next ingest takes it")


def close_refused(names: list[str], **_: Any) -> None:
    """Close refusals."""
    from tasks.data import quarantine
    from tasks.ground import params

    for entry in quarantine.close(params.load(), names):
        print(f"{entry.id} is closed")


def reports() -> None:
    """Draw what a person opens in a browser."""
    from tasks.data import exploration

    for path in exploration.reports():
        print(path)


def _command(kinds: Any, name: str, call: Any, help_: str) -> argparse.ArgumentParser:
    one: argparse.ArgumentParser = kinds.add_parser(name, help=help_, description=help_)
    one.set_defaults(call=call)
    return one
