"""The commands of `python -m tasks`: thin words around the steps, and around what a person asks of any wing."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tasks import files, settings, steps


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
    _command(kinds, "history", history, "every version of a model: from what, judged how, champion when").add_argument(
        "model"
    )
    listed = _command(kinds, "alarms", alarms, "what is not as it was promised, and since when")
    listed.add_argument("model")
    listed.add_argument("--all", action="store_true", help="those too that are over")
    seen = _command(kinds, "acknowledge", acknowledge, "say that somebody has seen an alarm, and what of it")
    seen.add_argument("model")
    seen.add_argument("key", help="as `python -m tasks alarms` names it")
    seen.add_argument("--note", default="", help="is kept with it")
    one = _command(kinds, "keys", keys, "API keys of what serves: list them, add one, take one back")
    one.add_argument("--add", metavar="NAME", help="make a key for somebody; it is shown once")
    one.add_argument("--remove", metavar="NAME", help="take it back, at once")
    built = _command(kinds, "image", image, "write the build context of a release's image, and print how it is built")
    built.add_argument("model")
    built.add_argument("--version", type=int, help="a version of the registry, instead of the champion")
    built.add_argument("--to", type=Path, metavar="FOLDER", help="instead of var/images/<model>/<candidate>")
    written = _command(kinds, "manifests", manifests, "write a model's Kubernetes manifests, to be read and committed")
    written.add_argument("model")
    written.add_argument("--images", required=True, help="where images are, such as registry.example/evergreen")
    written.add_argument("--to", type=Path, default=Path("deployments/kubernetes/models"), metavar="FOLDER")
    _command(kinds, "data", data, "bring the files of the data version that data.dvc names")
    _command(kinds, "reports", reports, "draw the exploratory report of each dataset and the Data Docs")


def run_step(step: str, model: str | None = None) -> None:
    """Run one step, as a stage of `dvc repro` does. What was packaged is tracked in MLflow."""
    steps.run(step, [model] if model else [])
    if step == "package" and model:
        from tasks.release import package, tracking

        run = tracking.track(model, settings.BUILD / model / "release", settings.BUILD / model, package.measured(model))
        print(f"tracked in MLflow: {run}")


def env() -> None:
    """Print what `make shell` exports."""
    print(settings.exports())


def why(model: str) -> None:
    """Print for each stage whether it would run, and the first input that differs."""
    from tasks import params
    from tasks.training import graph

    params.load().model(model)
    reasons = graph.reasons(model)
    for stage, reason in reasons.items():
        print(f"{stage:<28} {f'would run: {reason}' if reason else 'unchanged'}")
    if not any(reasons.values()):
        print(f"{model}: nothing to do, no stage has an input that changed")
    for said in files.lines(settings.VAR / "decisions" / f"{model}.jsonl")[-1:]:
        print(f"the retrain policy was last asked {said['at']}: {said['why']}")


def rollback(model: str, to: int | None, reason: str) -> None:
    """Put an earlier champion back."""
    from tasks import params
    from tasks.release import registry

    params.load().model(model)
    print(registry.rollback(model, to=to, reason=reason))


def history(model: str) -> None:
    """Print the versions of a model."""
    from tasks import params
    from tasks.release import registry

    params.load().model(model)
    for entry in registry.history(model):
        named = f" ({', '.join(entry.aliases)})" if entry.aliases else ""
        print(f"version {entry.version}{named}: candidate {entry.candidate}, made {entry.created}, run {entry.run_id}")
        print(f"  data       {entry.data_version}")
        print(f"  verdict    {entry.summary or 'none'}")
        if entry.promoted_by is not None:
            print(f"  promoted   by verdict {entry.promoted_by}")
        for period in entry.champion:
            print(f"  champion   {period}")
        if entry.withdrawn is not None:
            print(f"  withdrawn  {entry.withdrawn}")


def alarms(model: str, all: bool) -> None:  # noqa: A002 - the name of the option
    """Print the alarms of a model."""
    from tasks import params
    from tasks.monitoring import alarms as kept

    params.load().model(model)
    shown = [one for one in kept.read(model) if all or one["closed"] is None]
    print("\n".join(map(kept.in_words, shown)) or f"{model}: no alarm is open")


def acknowledge(model: str, key: str, note: str) -> None:
    """Say that somebody has seen an alarm."""
    from tasks import params
    from tasks.monitoring import alarms as kept

    params.load().model(model)
    print(kept.in_words(kept.acknowledge(model, key, note)))


def keys(add: str | None, remove: str | None) -> None:
    """Change the API keys, or list their names."""
    from tasks import keys as held

    if remove:
        held.remove(remove)
    if add:
        print(held.add(add))
        print(f"This is the key of {add}. It is shown only now. Requests carry it as `authorization: Bearer <key>`")
    if not add and not remove:
        print("\n".join(held.names()) or "there are no keys: whoever reaches the port (of 127.0.0.1) is answered")


def image(model: str, version: int | None, to: Path | None) -> None:
    """Write what an image of a release is built of."""
    from tasks import params
    from tasks.release import image

    params.load().model(model)
    folder, candidate = image.of_version(model, version, to)
    tag = image.reference("<registry>", model, candidate)
    print(f"docker build --file {folder}/Containerfile --tag {tag} {folder}")


def manifests(model: str, images: str, to: Path) -> None:
    """Write the manifests of a model, at its champion."""
    from tasks import params
    from tasks.release import image, manifests

    params.load().model(model)
    number, candidate = image.chosen(model)
    print(manifests.write(model, candidate, number, images, to))


def data() -> None:
    """Bring the data version that data.dvc names: from the remote, or from the upstream again."""
    from tasks import params
    from tasks.data import versions

    versions.restore_from_upstream(params.load(), print)


def reports() -> None:
    """Draw what a person opens in a browser."""
    from tasks.data import report

    for path in report.reports():
        print(path)


def _command(kinds: Any, name: str, call: Any, help_: str) -> argparse.ArgumentParser:
    one: argparse.ArgumentParser = kinds.add_parser(name, help=help_, description=help_)
    one.set_defaults(call=call)
    return one
