"""The command line: `evergreen <command>`, each a thin layer over the tasks, the flows and the local stack.

Every import that costs anything stands inside its command, so that help and completion come at once. Exit codes:
0 done; 1 it could not be done, and stderr says why; 2 wrong usage; 3 done, and something wants attention (a stage
would run, a service is down, an alarm is open); 141 nobody reads the output any more, as with `head`.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import date, datetime
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, ParamSpec
from zoneinfo import ZoneInfo

from typer import Argument, Context, Exit, Option, Typer

from tasks.ground import exit_codes, settings
from tasks.ground.errors import Mistake
from tasks.journal import journal

if TYPE_CHECKING:
    from tasks.ground import params

ATTENTION = 3  # the exit code of a command that was done, and that shows something to look after

LOOP, MODELS, DATA = "Loop", "Models", "Data"
SERVING, MONITORING, PLATFORM = "Serving", "Monitoring", "Platform and project"

app = Typer(
    help="Keeps machine-learning models current: watch, validate, retrain, judge, package, serve.",
    epilog="Exit codes: 0 done · 1 could not be done · 2 wrong usage · 3 done, something wants attention.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
GROUPS = {
    "journal": Typer(
        help="Who did what, when, on which bytes, why: show, verify, head, aliases.", no_args_is_help=True
    ),
    "keys": Typer(help="API keys of the router: list, add, remove, open.", no_args_is_help=True),
    "policy": Typer(help="policies/promotion.yaml: check.", no_args_is_help=True),
    "quarantine": Typer(help="Deliveries that were refused: list, show, retry, close.", no_args_is_help=True),
}
app.add_typer(GROUPS["policy"], name="policy", rich_help_panel=MODELS)
app.add_typer(GROUPS["journal"], name="journal", rich_help_panel=MODELS)
app.add_typer(GROUPS["keys"], name="keys", rich_help_panel=SERVING)
app.add_typer(GROUPS["quarantine"], name="quarantine", rich_help_panel=DATA)

P = ParamSpec("P")
Command = Callable[P, int | None]


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    try:
        app(arguments, prog_name="evergreen")
    except SystemExit as end:
        return int(end.code or 0)
    raise AssertionError("typer always exits")


def command(
    example: str, panel: str | None = None, *, needs_models: bool = False
) -> Callable[[Command[P]], Command[P]]:
    """Add a function to the command line, by the name that its example begins with.

    It runs in the project's folder, with a `model` only where params.yaml has it, and where it `needs_models` only
    when there is one; its process ends with the exit code that it returns.
    """
    first, second = [*example.split(), ""][:2]
    group, name = (GROUPS[first], second) if first in GROUPS else (app, first)

    def add(function: Command[P]) -> Command[P]:
        @exit_codes.command
        def checked(*args: P.args, **kwargs: P.kwargs) -> int | None:
            if isinstance(model := kwargs.get("model"), str):
                _params().model(model)
            elif needs_models:
                _params().refuse_none()
            return function(*args, **kwargs)

        @wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            os.chdir(settings.ROOT)
            raise Exit(checked(*args, **kwargs))

        group.command(name, rich_help_panel=panel, epilog=f"Example: evergreen {example}")(run)
        return function

    return add


# ── what is typed ─────────────────────────────────────────────────────────────────────────────────


def _complete_model(incomplete: str) -> list[str]:
    return sorted(folder.parent.name for folder in settings.ROOT.glob(f"models/{incomplete}*/pipeline"))


def _complete_dataset(incomplete: str) -> list[str]:
    return sorted(folder.name for folder in settings.ROOT.glob(f"data/{incomplete}*/"))


def _complete_partition(context: Context, incomplete: str) -> list[str]:
    partitions = settings.ROOT.glob(f"data/{context.params.get('dataset')}/{incomplete}*")
    return sorted(path.name.partition(".")[0] for path in partitions)


def _from_here(text: str, *, exists: bool) -> str:
    """A path as the project's folder sees it; a URL, or what is no path from here, stays as it was typed."""
    path = Path.cwd() / text
    return text if "://" in text or Path.cwd() == settings.ROOT or (exists and not path.exists()) else str(path)


def _source(text: str) -> str:
    return _from_here(text, exists=True)


def _target(text: str) -> str:
    return _from_here(text, exists=False)


Texts = list[str] | None
Model = Annotated[str, Argument(help="A name below `models` in params.yaml.", autocompletion=_complete_model)]
Models = Annotated[
    Texts, Option("--model", help="A model; repeatable. All, where none is named.", autocompletion=_complete_model)
]
Dataset = Annotated[str, Argument(help="Such as flights.", autocompletion=_complete_dataset)]
Partition = Annotated[str, Argument(help="Such as 2013-10.", autocompletion=_complete_partition)]
Version = Annotated[int | None, Option("--version", help="A version of the registry.")]
Json = Annotated[bool, Option("--json", help="Print JSON.")]
All = Annotated[bool, Option("--all", help="Closed ones too.")]
Folder = Annotated[Path | None, Option("--to", metavar="FOLDER", resolve_path=True, help="Instead of its usual place.")]


def _params() -> params.Params:
    from tasks.ground import params

    return params.load()


def _print(data: Any, as_json: bool, lines: Iterable[str]) -> None:
    if as_json:
        print(json.dumps(_without_nan(data), indent=2, ensure_ascii=False, default=str))
    else:
        print("\n".join(lines))


def _without_nan(data: Any) -> Any:
    """JSON has no NaN and no infinity: null, as other parsers than Python's refuse them."""
    if isinstance(data, dict):
        return {name: _without_nan(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [_without_nan(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


# ── the loop ──────────────────────────────────────────────────────────────────────────────────────


@command("run", LOOP, needs_models=True)
def run() -> int:
    """Run the whole loop: let data arrive, ingest, train, judge, package, serve."""
    from deployments.tools import quickstart

    return quickstart.run()


@command("why flight_delay || evergreen train flight_delay", LOOP)
def why(model: Model, as_json: Json = False) -> int:
    """List for each stage whether it would run now, and which input differs. Exit code 3: one would."""
    from tasks.training import dvc_graph

    reasons = dvc_graph.reasons(model)
    last = journal.last(model, "decision")
    decision = last.flat if last else None
    lines = [f"{stage:<28} {f'would run: {reason}' if reason else 'unchanged'}" for stage, reason in reasons.items()]
    if not any(reasons.values()):
        lines.append(f"{model}: nothing to do, no stage has an input that changed")
    if decision:
        lines.append(f"the retrain policy was last asked {decision['time']}: {decision['why']}")
    _print({"model": model, "stages": reasons, "decision": decision}, as_json, lines)
    return ATTENTION if any(reasons.values()) else 0


@command("try prepare flight_delay", LOOP)
def try_(
    stage: Annotated[
        Literal["validate", "prepare", "train", "evaluate", "package"], Argument(help="A stage of dvc.yaml.")
    ],
    model: Model,
    partition: Annotated[str | None, Option(help="validate, prepare: of this alone.")] = None,
    first: Annotated[
        Literal["validate", "prepare", "train", "evaluate", "package"] | None,
        Option("--from", metavar="STAGE", help="Begin with an earlier stage."),
    ] = None,
) -> None:
    """Run one stage on the last inputs, for developing rows and pipeline: shows what came out, records nothing."""
    from tasks.lifecycle import trial_stage

    for line in trial_stage.run(stage, model, partition, first):
        print(line, flush=True)


@command("trace 01a22f26ef7e73369aebe5d3ea6e2681", MODELS, needs_models=True)
def trace(
    prediction: Annotated[str, Argument(metavar="PREDICTION", help="The id that an answer or a batch gave it.")],
    as_json: Json = False,
) -> None:
    """Tell the story of a prediction: request, release, verdict, training, data, label."""
    from tasks.lifecycle.trace import Tracer

    story = Tracer(_params()).trace(prediction)
    _print(story.as_json(), as_json, story.lines())


@command("reproduce 258184c789ee3be4", MODELS, needs_models=True)
def reproduce(
    name: Annotated[str, Argument(metavar="CANDIDATE|PREDICTION", help="A candidate, or the id of a prediction.")],
    keep: Annotated[bool, Option("--keep", help="Leave the clone in var/reproduce/<candidate>.")] = False,
    as_json: Json = False,
) -> int:
    """Make a candidate again of its commit, data and packages, and say what came out as it was (if not all: 3)."""
    from tasks.lifecycle import reproduce

    origin = reproduce.find(name, _params())
    levels = []
    if not as_json:
        print(origin, flush=True)
    for line in reproduce.run(origin, keep=keep):
        if isinstance(line, reproduce.Level):
            levels.append(line)
        if not as_json:
            print(line, flush=True)
    if as_json:
        print(
            json.dumps({"candidate": origin.version.candidate, "levels": [asdict(level) for level in levels]}, indent=1)
        )
    return 0 if all(level.proven for level in levels) else ATTENTION


@command("check-time flight_delay", LOOP)
def check_time(
    model: Model,
    partition: Annotated[str | None, Option("--partition", help="Only this one, such as 2013-10.")] = None,
    cuts: Annotated[int, Option("--cuts", min=1, help="Moments at which the future of a partition is cut off.")] = 3,
    as_json: Json = False,
) -> int:
    """Make rows again with the future cut off: whether any uses what was not known yet. Exit code 3: one does."""
    from tasks.lifecycle import check_time

    findings = check_time.check(model, partition, cuts)
    _print(findings.as_json(), as_json, check_time.report(model, findings))
    return ATTENTION if findings.are_faults else 0


def _run_flow(name: str, **parameters: Any) -> int:
    from flows.prefect_support import run_local

    return 0 if run_local.run(name, **parameters).is_completed() else 1


@command("ingest", LOOP, needs_models=True)
def ingest() -> int:
    """Validate what lies in the landing zone, then version or quarantine it."""
    return _run_flow("ingest")


@command("train flight_delay", LOOP)
def train(
    model: Model,
    again: Annotated[bool, Option("--again", help="Judge also when nothing has changed.")] = False,
    if_due: Annotated[bool, Option("--if-due", help="Leave new data to the retrain policy.")] = False,
) -> int:
    """Train a model if anything it is made from has changed; judge it against the champion; promote or refuse it."""
    return _run_flow("train", model=model, again=again, if_due=if_due)


@command("rollout flight_delay", LOOP)
def rollout(
    model: Model,
    target: Annotated[Literal["local", "kubernetes"], Option(help="This machine's router, or Git.")] = "local",
    manifests: Annotated[
        str | None, Option(parser=_target, metavar="FOLDER", help="kubernetes: of <model>.yaml.")
    ] = None,
    branch: Annotated[str | None, Option(help="kubernetes: the branch to commit to.")] = None,
    remote: Annotated[str | None, Option(help="kubernetes: where to push to.")] = None,
) -> int:
    """Make the registry's champion the live release: warmed up, compared, given a share of requests, then all."""
    return _run_flow("rollout", model=model, target=target, manifests=manifests, branch=branch, remote=remote)


@command("monitor flight_delay", LOOP)
def monitor(model: Model) -> int:
    """Look for drift and degradation in what was predicted and labelled since the last time."""
    return _run_flow("monitor", model=model)


@command("predict flight_delay flights/2013-10 --to scored/", LOOP)
def predict(
    model: Model,
    source: Annotated[str, Argument(parser=_source, metavar="SOURCE", help="A file, folder, URL or partition.")],
    to: Annotated[str | None, Option(parser=_target, metavar="FOLDER|URL", help="Else var/batch/<model>.")] = None,
    version: Annotated[str, Option(help="champion, challenger, former, a number or a candidate.")] = "champion",
    chunk: Annotated[int, Option(min=1, max=1_000_000, help="Rows in one Parquet file.")] = 50_000,
    keep: Annotated[Texts, Option(metavar="COLUMN", help="To copy to the answers; repeatable; '*': every one.")] = None,
) -> int:
    """Score a batch to Parquet with a release. Started again, it continues where it ended."""
    return _run_flow("predict", model=model, source=source, to=to, version=version, chunk=chunk, keep=keep)


# ── models ────────────────────────────────────────────────────────────────────────────────────────


@command("add-model rides --from rides.csv --label count --time at", MODELS)
def add_model(
    name: Annotated[str, Argument(help="Of the model, and of its dataset.")],
    table: Annotated[list[str], Option("--from", parser=_source, metavar="FILE", help="CSV or Parquet; repeatable.")],
    more: Annotated[Texts, Argument(parser=_source, metavar="FILE", help="More files of --from.")] = None,
    label: Annotated[Texts, Option(metavar="COLUMN", help="What is to be predicted; several: repeat it.")] = None,
    time: Annotated[str | None, Option(metavar="COLUMN", help="When a row was seen.")] = None,
    task: Annotated[str | None, Option(help="Of classification, regression, forecast, anomaly.")] = None,
    series: Annotated[Texts, Option(metavar="COLUMN", help="Tells a forecast's series apart; repeatable.")] = None,
    horizon: Annotated[int | None, Option(min=1, metavar="STEPS", help="How far ahead a forecast is asked.")] = None,
    partition_by: Annotated[str | None, Option(help="year, quarter, month, day, hour, file or rows.")] = None,
    key: Annotated[Texts, Option("--id", metavar="COLUMN", help="Names a row; repeatable.")] = None,
    keep: Annotated[Texts, Option(metavar="COLUMN", help="Stays a feature whatever it smells of; repeatable.")] = None,
    weight: Annotated[str | None, Option(metavar="COLUMN", help="How often a row counts.")] = None,
    cost: Annotated[str | None, Option(metavar="FP=1,FN=20", help="What a false alarm and a miss cost.")] = None,
    yes: Annotated[bool, Option("--yes", help="Do not ask before writing.")] = False,
    train: Annotated[bool, Option("--run/--no-run", help="Run the loop up to a verdict.")] = True,
) -> int:
    """Make a model of your data: rows, pipeline, expectations, a test and its entry; then train and judge it."""
    from deployments.tools import add_model
    from tasks.drafting.wish import Wish

    costs = add_model.cost_of(cost)
    first, further = (label[0], tuple(label[1:])) if label else (None, ())
    names = tuple(key or ()), tuple(keep or ())
    of_forecast = tuple(series or ()), horizon
    wish = Wish(name, first, time, task, partition_by, *names, weight, costs, further, *of_forecast)
    ask = not yes and sys.stdin.isatty() and sys.stdout.isatty()
    return add_model.run(wish, [Path(each) for each in [*table, *(more or [])]], train=train, ask=ask)


@command("history flight_delay", MODELS)
def history(model: Model, as_json: Json = False) -> None:
    """List every version: what it was made from, its verdict, and when it was champion."""
    from tasks.release.registry import registry

    entries = registry.history(model)
    _print([asdict(entry) for entry in entries], as_json, (line for entry in entries for line in _version(entry)))


def _version(entry: Any) -> Iterable[str]:
    named = f" ({', '.join(entry.aliases)})" if entry.aliases else ""
    yield f"version {entry.version}{named}: candidate {entry.candidate}, made {entry.created}, run {entry.run_id}"
    facts = [("data", entry.data_version), ("verdict", entry.summary or "none"), ("waits", entry.on_hold)]
    facts.append(("promoted", entry.promoted_by and f"by verdict {entry.promoted_by}"))
    facts += [("champion", period) for period in entry.champion]
    facts.append(("withdrawn", entry.withdrawn))
    facts.append(("files", entry.files_removed and f"removed {entry.files_removed}: it never was champion"))
    yield from (f"  {name:<10} {fact}" for name, fact in facts if fact)


@command("promote flight_delay", MODELS)
def promote(model: Model, version: Version = None) -> None:
    """Promote the challenger that waits for a person's approval."""
    from tasks.release.registry import promotions

    print(f"{promotions.promote_by_hand(model, version)} is champion")


@command("approve flight_delay --why 'read the verdict; the slices are fine'", MODELS)
def approve(
    model: Model,
    candidate: Annotated[str | None, Argument(help="Instead of the challenger.")] = None,
    why: Annotated[str, Option(help="Recorded with the approval.")] = "",
    break_glass: Annotated[bool, Option("--break-glass", help="Without the other approvals, and in a freeze.")] = False,
) -> int:
    """Say yes to a candidate that waits for approvals; with the last one it is promoted."""
    from tasks.ground.errors import NotPromoted
    from tasks.release.registry import promotions, version_approvals

    version, line = version_approvals.approve(model, candidate, why, break_glass=break_glass)
    print(f"{line.by} ({line.identity}) approves candidate {line.candidate} of {model}")
    try:
        print(f"{promotions.promote_by_hand(model, version)} is champion")
    except NotPromoted as error:
        print(f"it waits: {error}")
        return ATTENTION
    return 0


@command("approvals flight_delay", MODELS)
def approvals(model: Model, as_json: Json = False) -> None:
    """Approvals that were given: for which candidate, by whom, when and why."""
    from tasks.release.policy import approvals as given

    lines = given.given(model)
    words = [f"{each.time[:16]}  {each.candidate}  {each.by} ({each.identity}): {each.why}" for each in lines]
    _print([asdict(each) for each in lines], as_json, words or [f"{model}: no approval was given yet"])


@command("policy check", MODELS)
def policy_check() -> None:
    """Read policies/promotion.yaml and say what is wrong with it, if anything is."""
    from tasks.release.policy import promotion

    loaded = promotion.load()
    if loaded is None:
        print(f"there is no {promotion.NAME}: the gate alone decides")
    else:
        print(f"{promotion.NAME}: {len(loaded.policy.rules)} rules, {len(loaded.policy.freezes)} freezes, sound")


@command("rollback flight_delay --reason 'late arrivals are wrong'", MODELS)
def rollback(
    model: Model,
    to: Annotated[int | None, Option(metavar="VERSION", help="Instead of the previous champion.")] = None,
    to_time: Annotated[
        str | None, Option(metavar="TIME", help="To the version that was live then, such as 2013-11-03T12:00Z.")
    ] = None,
    reason: Annotated[str, Option(help="Recorded with the withdrawn version.")] = "",
) -> None:
    """Make the previous champion the champion again, and withdraw the present one."""
    from tasks.release.registry import promotions

    if to_time is not None:
        from tasks.lifecycle import live

        if to is not None:
            raise Mistake("--to and --to-time name the version twice: give one of them")
        to = live.version_at(model, live.parse(to_time))
    print(promotions.rollback(model, to=to, reason=reason))


@command("live flight_delay --at 2013-11-03T12:00Z", MODELS)
def live(
    model: Model,
    at: Annotated[str, Option(metavar="TIME", help="ISO 8601; without a zone UTC.")],
    until: Annotated[
        str | None, Option(metavar="TIME", help="Of a span; else it is the minute that begins then.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Tell which releases were live at a time, and which share of the requests each answered."""
    from tasks.lifecycle import live

    answered = live.over(model, live.parse(at), live.parse(until) if until else None)
    _print(answered.as_json(), as_json, answered.lines())


# ── the journal ───────────────────────────────────────────────────────────────────────────────────


Chain = Annotated[str | None, Argument(metavar="MODEL|platform", help="Whose journal; all, where none is named.")]


@command("journal show flight_delay --kind verdict --since 2013-11-03")
def show_journal(
    chain: Chain = None,
    kind: Annotated[Texts, Option("--kind", help="Such as verdict; repeatable.")] = None,
    since: Annotated[str | None, Option(metavar="TIME", help="ISO 8601; without a zone UTC.")] = None,
    as_json: Json = False,
) -> None:
    """Show who did what, when, on which bytes, and why; oldest first."""
    from deployments.tools import journal_tables

    chosen = journal_tables.chosen(chain, kind or [], since)
    _print(
        {name: [vars(line) for line in lines] for name, lines in chosen.items()}, as_json, journal_tables.rows(chosen)
    )


@command("journal verify --head pinned.json")
def verify_journal(
    chain: Chain = None,
    head: Annotated[
        list[Path] | None,
        Option("--head", metavar="FILE", resolve_path=True, help="Heads that were kept elsewhere; repeatable."),
    ] = None,
    registry: Annotated[bool, Option("--registry", help="And the heads that promotions have left in MLflow.")] = False,
    as_json: Json = False,
) -> int:
    """Find every line that was changed, removed, moved or cut off, and say where. Exit code 3: one was."""
    from deployments.tools import journal_tables

    verified = journal_tables.verify(chain, head or [], registry=registry)
    data = {name: [vars(damage) for damage in damages] for name, damages in verified.items()}
    _print(data, as_json, journal_tables.in_words(verified))
    return ATTENTION if any(verified.values()) else 0


@command("journal head --json")
def journal_heads(chain: Chain = None, as_json: Json = False) -> None:
    """Print the signed heads: kept elsewhere, they show later that nothing was cut off or written anew."""
    from deployments.tools import journal_tables

    heads = journal_tables.heads(chain)
    lines = [f"{head['chain']}  line {head['number']}  {head['hash']}  {head['time']}" for head in heads]
    _print({"heads": heads}, as_json, lines or ["the journal has no line yet"])


@command("journal lineage")
def journal_lineage() -> None:
    """Tell a catalogue of lineage (OPENLINEAGE_URL=http://…) what is new; `evergreen up` does it by itself."""
    from tasks.journal import open_lineage

    count = open_lineage.send()
    print(f"{count} new lines were told" if count else "nothing is new")


@command("journal aliases flight_delay", needs_models=True)
def journal_aliases(
    model: Annotated[str | None, Argument(help="All, where none is named.", autocompletion=_complete_model)] = None,
    put_right: Annotated[bool, Option("--put-right", help="Set them in MLflow as the journal says.")] = False,
    as_json: Json = False,
) -> int:
    """Compare champion, challenger and former in MLflow with what the journal says. Exit code 3: they differ."""
    from tasks.release.registry import alias_lines

    names, compare = [model] if model else list(_params().models), alias_lines.differences
    wrong = [each for name in names for each in (alias_lines.put_right if put_right else compare)(name)]
    done = "; set in MLflow as the journal says" if put_right else ""
    lines = [f"{each}{done}" for each in wrong] or ["each alias names in MLflow what the journal says"]
    _print({"aliases": [vars(each) for each in wrong], "put_right": put_right}, as_json, lines)
    return ATTENTION if wrong and not put_right else 0


@command("compare workspace champion --model flight_delay", MODELS, needs_models=True)
def compare(
    names: Annotated[
        list[str], Argument(help="workspace, champion, a version, a candidate, or an experiment of `dvc exp`.")
    ],
    model: Annotated[
        str | None, Option("--model", help="Needed where there are several.", autocompletion=_complete_model)
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare candidates on the same holdout rows: settings that differ, metrics, the paired difference, latency."""
    from tasks.lifecycle import side_by_side

    compared = side_by_side.compare(model or _only_model(), names)
    _print(compared.to_json(), as_json, side_by_side.in_words(compared))


def _only_model() -> str:
    names = list(_params().models)
    if len(names) != 1:
        raise Mistake(f"name the model: `--model`, one of {', '.join(names)}")
    return names[0]


@command("backtest --model flight_delay --source upstream", MODELS, needs_models=True)
def backtest(
    model: Models = None,
    source: Annotated[Literal["data", "upstream"], Option(help="data/, or all there is upstream.")] = "data",
    since: Annotated[
        Any, Option(parser=date.fromisoformat, metavar="DAY", help="The day of the first decision.")
    ] = None,
    until: Annotated[Any, Option(parser=date.fromisoformat, metavar="DAY", help="The day after the last row.")] = None,
    policy: Annotated[Texts, Option(help="A policy to compare; repeatable. All, if none.")] = None,
    jobs: Annotated[int | None, Option(min=1, help="Processes; else as EVERGREEN_ENGINE says.")] = None,
    page: Annotated[Path | None, Option(resolve_path=True, help="Write the tables there as well.")] = None,
    picture: Annotated[Path | None, Option(resolve_path=True, help="Draw there.")] = None,
) -> None:
    """Simulate several retrain policies side by side on the history of the models."""
    from tasks.lifecycle import backtest_report
    from tasks.lifecycle.backtest import EVERY, BacktestRequest

    request = BacktestRequest(source, since, until, tuple(policy or EVERY))  # type: ignore[arg-type] # run() refuses others
    backtest_report.compare(model or [], _params(), request, jobs, page, picture)


@command("tune flight_delay --workers 2", MODELS)
def tune(
    model: Model,
    workers: Annotated[int | None, Option(min=1, max=8, help="Processes; else as EVERGREEN_ENGINE says.")] = None,
    trials: Annotated[int | None, Option(min=1, help="Instead of those in params.yaml.")] = None,
    budget: Annotated[float | None, Option(min=0.001, metavar="SECONDS", help="CPU seconds, instead.")] = None,
    apply: Annotated[bool, Option("--apply", help="Write the proposal into params.yaml.")] = False,
    as_json: Json = False,
) -> None:
    """Search better hyper-parameters on folds of the training rows, and propose an edit of params.yaml."""
    from deployments.tools import tune

    request = tune.TuneRequest(trials, budget, workers)
    result, lines = tune.run(model, _params(), request, apply=apply)
    _print(result, as_json, lines)


# ── data ──────────────────────────────────────────────────────────────────────────────────────────


@command("deliver 2013-10", DATA, needs_models=True)
def deliver(partitions: Annotated[list[str], Argument(help="2013-10, or 10 for the month of 2013.")]) -> None:
    """Have the upstream deliver partitions into the landing zone."""
    from tasks.data import delivery

    names = [f"2013-{int(name):02d}" if name.isdigit() else name for name in partitions]
    delivery.deliver(_params(), names, print)


@command("data", DATA, needs_models=True)
def data() -> None:
    """Bring the files of the data version that data.dvc names, from the remote or from the upstream."""
    from tasks.data import delivery

    delivery.restore(_params(), print)


@command("contract rides.csv --dataset rides", DATA)
def contract(
    file: Annotated[str, Argument(parser=_source, metavar="FILE", help="CSV or Parquet.")],
    dataset: Annotated[str, Option(help="As whose contract it is written.")] = "the dataset",
) -> None:
    """Print the draft of a contract: columns, types and expectations of a file, with room."""
    from tasks.drafting import source, survey, writing

    seen = survey.survey(source.look([Path(file)]), lambda _share, _rows: None)
    print(writing.suite(seen, dataset), end="")


@command("check rides.csv --dataset rides", DATA, needs_models=True)
def check(
    file: Annotated[str, Argument(parser=_source, metavar="FILE", help="A delivery to come.")],
    dataset: Annotated[str, Option(help="Whose partition it would be.", autocompletion=_complete_dataset)],
    model: Models = None,
    partition: Annotated[str | None, Option(help="Its name, if not the file's.")] = None,
) -> int:
    """Say what ingest would say of a file, and record nothing. Exit code 3: it would be refused."""
    from tasks.lifecycle import dry_run

    loaded = _params()
    if model:
        loaded = loaded.model_copy(update={"models": {name: loaded.model(name) for name in model}})
    accepted, lines = dry_run.examine(Path(file), loaded, dataset, partition)
    print("\n".join(lines))
    return 0 if accepted else ATTENTION


@command("revisions flights 2013-10", DATA)
def revisions(
    dataset: Annotated[str | None, Argument(help="Of this alone.", autocompletion=_complete_dataset)] = None,
    partition: Annotated[str | None, Argument(help="Of this alone.", autocompletion=_complete_partition)] = None,
    as_json: Json = False,
) -> None:
    """List the partitions that were revised, and what each revision changed."""
    from tasks.data import corrections

    listing = corrections.listed(_params(), dataset, partition)
    _print(listing, as_json, [*corrections.in_words(listing)] or ["no partition was ever revised"])


@command("diff flights 2013-10 --from 1 --to 2", DATA, needs_models=True)
def diff(
    dataset: Dataset,
    partition: Partition,
    former: Annotated[
        str | None, Option("--from", parser=_source, metavar="REVISION|FILE", help="Else the one before the other.")
    ] = None,
    now: Annotated[
        str | None, Option("--to", parser=_source, metavar="REVISION|FILE", help="Else what counts now.")
    ] = None,
    write: Annotated[Path | None, Option(resolve_path=True, metavar="FILE", help="All rows: .csv or .parquet.")] = None,
    as_json: Json = False,
) -> None:
    """Show which rows differ between two versions of a partition: counts, then examples of each kind."""
    from tasks.data import row_differences

    before, after, differences = row_differences.between(_params(), dataset, partition, former, now)
    if write:
        row_differences.write(differences, write)
    facts = {"from": before, "to": after, **asdict(differences.counts), "examples": differences.examples()}
    head = f"{dataset}/{partition}, from {before} to {after}:"
    _print(
        facts, as_json, [head, *row_differences.in_words(differences), *([f"all of them: {write}"] if write else [])]
    )


@command("revert flights 2013-10 --to 1", DATA)
def revert(
    dataset: Dataset,
    partition: Partition,
    to: Annotated[int | None, Option(metavar="NUMBER", help="Instead of the one before the newest.")] = None,
) -> None:
    """Make an earlier revision of a partition count again."""
    from tasks.data import corrections

    print(corrections.revert(_params(), dataset, partition, to))


@command("withdraw flights 2013-10", DATA)
def withdraw(dataset: Dataset, partition: Partition) -> None:
    """Take a partition out of the data; `evergreen revert` brings it back."""
    from tasks.data import corrections

    print(corrections.withdraw(_params(), dataset, partition))


@command("merge --ours flights/2013-10", DATA)
def merge(
    ours: Annotated[Texts, Option(help="A partition of which ours counts; repeatable.")] = None,
    theirs: Annotated[Texts, Option(help="A partition of which theirs counts; repeatable.")] = None,
) -> None:
    """Make the data version of both branches, after `git merge` stopped at data.dvc."""
    from tasks.data import merge

    print(merge.merge(ours or [], theirs or []))


@command("quarantine list --all")
def list_quarantine(all: All = False, as_json: Json = False) -> None:  # noqa: A002 - the option's name
    """List the deliveries that wait in quarantine."""
    from tasks.data import quarantine

    entries = [entry for entry in quarantine.entries(_params().quarantine) if all or entry.closed is None]
    lines = [f"{e.id}  {e.time:%Y-%m-%d %H:%M}  {e.file}: {e.closed or e.reason}" for e in entries]
    _print([asdict(entry) for entry in entries], as_json, lines or ["nothing waits in quarantine"])


@command("quarantine show flights/2013-10-1b2c3d")
def show_refused(name: Annotated[str, Argument(help="As the list names it.")]) -> None:
    """Print the report of a refused delivery."""
    from tasks.data import quarantine

    print(quarantine.page(_params(), name))


@command("quarantine retry")
def retry_refused(
    names: Annotated[Texts, Argument(help="As the list names them; none: all that wait.")] = None,
) -> None:
    """Put refused files back into the landing zone, for the next ingest."""
    from tasks.data import quarantine

    for entry in quarantine.retry(_params(), names or []):
        print(f"{entry.id} is back in the landing zone; the next ingest takes it")


@command("quarantine close flights/2013-10-1b2c3d")
def close_refused(names: Annotated[list[str], Argument(help="As the list names them.")]) -> None:
    """Mark refusals as seen to; the files stay."""
    from tasks.data import quarantine

    for entry in quarantine.close(_params(), names):
        print(f"{entry.id} is closed")


@command("reports", DATA)
def reports() -> None:
    """Draw the exploratory report of each dataset, and the Data Docs."""
    from tasks.data import exploration

    for path in [*exploration.tables(), exploration.data_docs()]:
        print(path)


# ── serving ───────────────────────────────────────────────────────────────────────────────────────


@command("keys list")
def list_keys(as_json: Json = False) -> None:
    """List the names of the keys, and say who is answered."""
    from deployments.serving import api_keys

    names, required = api_keys.names(), api_keys.Keys().are_required()
    nobody = "there is no key, and nobody is answered: `evergreen keys add` makes one, `evergreen keys open` opens"
    everybody = "no key is needed: whoever reaches the port (of 127.0.0.1) is answered; `evergreen keys add` changes it"
    _print({"keys": names, "required": required}, as_json, names or [nobody if required else everybody])


Holder = Annotated[str, Argument(help="Whose key it is.")]


@command("keys add shop")
def add_key(name: Holder) -> None:
    """Make a key for somebody; it is shown once. From the first one on, only holders of a key are answered."""
    from deployments.serving import api_keys

    print(api_keys.add(name))
    print(f"This is the key of {name}. It is shown only now. Requests carry it as `authorization: Bearer <key>`")


@command("keys remove shop")
def remove_key(name: Holder) -> None:
    """Remove a key, at once. Without the last one nobody is answered."""
    from deployments.serving import api_keys

    api_keys.remove(name)
    list_keys()


@command("keys open")
def open_keys() -> None:
    """Answer whoever reaches the port; no key may be left."""
    from deployments.serving import api_keys

    api_keys.open_to_all()
    list_keys()


@command("image flight_delay", SERVING)
def image(model: Model, version: Version = None, to: Folder = None) -> None:
    """Write the build context of a release's image, and print the command that builds it."""
    from tasks.release.cluster import image

    folder, candidate = image.of_version(model, version, to)
    tag = image.reference("<registry>", model, candidate)
    print(f"docker build --file {folder}/Containerfile --tag {tag} {folder}")


@command("release-environment flight_delay 258184c789ee3be4", SERVING)
def release_environment(
    model: Model, candidate: Annotated[str, Argument(help="The hash that names the release.")]
) -> None:
    """Install what a release pins into an environment of its own, where that differs from what is installed here."""
    from deployments.serving import release_environments
    from tasks.release import bento_store

    bento_store.ensure(model, candidate)
    print(release_environments.make(bento_store.release_folder(model, candidate)))


@command("manifests flight_delay --images registry.example/evergreen", SERVING)
def manifests(
    model: Model,
    images: Annotated[str, Option(help="Where images are, such as registry.example/evergreen.")],
    to: Folder = None,
    *,
    kserve: Annotated[
        bool, Option("--kserve", help="For KServe: a ClusterServingRuntime and an InferenceService.")
    ] = False,
) -> None:
    """Write a model's Kubernetes manifests, to be read and committed."""
    from tasks.release.cluster import manifests
    from tasks.release.registry import registry

    champion = registry.resolve(model, "champion")
    folder = to or Path("deployments/kubernetes/models")
    print(manifests.write(model, champion.candidate, champion.number, images, folder, kserve=kserve))


@command("load --rate 200 --seconds 60", SERVING, needs_models=True)
def load(
    rate: Annotated[float, Option(min=0.001, help="Requests a second.")] = 100,
    connections: Annotated[int | None, Option(min=1, help="Instead: so many, each as fast as it can.")] = None,
    seconds: Annotated[float, Option(help="How long.")] = 30,
    model: Models = None,
) -> int:
    """Put load on the router, and print each second how it answers. Exit code 1: a request failed."""
    from deployments.tools import load

    return load.run(rate, connections, seconds, model)


# ── monitoring ────────────────────────────────────────────────────────────────────────────────────


@command("alarms flight_delay", MONITORING)
def alarms(model: Model, all: All = False, as_json: Json = False) -> int:  # noqa: A002 - the option's name
    """List the open alarms of a model, and since when. Exit code 3: one is open."""
    from tasks.monitoring import alarms, words

    shown = [alarm for alarm in alarms.read(model) if all or alarm["closed"] is None]
    listed = list(map(alarms.in_words, shown)) or [f"{model}: no alarm is open"]
    _print(shown, as_json, [*listed, *(f"  {line}" for line in words.lines(model))])
    return ATTENTION if any(alarm["closed"] is None for alarm in shown) else 0


@command("acknowledge flight_delay 2013-10-10-dest-v1 --note 'a new airport'", MONITORING)
def acknowledge(
    model: Model,
    key: Annotated[str, Argument(help="As `evergreen alarms` names it.")],
    note: Annotated[str, Option(help="Kept with the alarm.")] = "",
) -> None:
    """Mark an alarm as seen."""
    from tasks.monitoring import alarms

    print(alarms.in_words(alarms.acknowledge(model, key, note)))


@command("forget flight_delay --time-after 2027-01-01", MONITORING)
def forget(
    model: Model,
    time_after: Annotated[str | None, Option(metavar="TIME", help="Requested after this.")] = None,
    time_before: Annotated[str | None, Option(metavar="TIME", help="Requested before this.")] = None,
    prediction_id: Annotated[Texts, Option(help="The id of a prediction; repeatable.")] = None,
    key: Annotated[Texts, Option(help="The key of a row or request; repeatable.")] = None,
) -> None:
    """Erase rows from the prediction log and all that is made of it: those that match every option."""
    from tasks.prediction_log import prediction_log

    zone = _params().model(model).timezone
    after, before = _moment("--time-after", time_after, zone), _moment("--time-before", time_before, zone)
    count = prediction_log.forget(model, after, before, prediction_id or [], key or [])
    if not count:
        print(f"{model}: no row of the log matches, nothing was changed")
        return
    print(
        f"{model}: {count:,} rows are forgotten: nothing reads them any more. They are out of the Parquet files of the "
        f"log; lines that a replica still writes to lose them when they are compacted. The next run of the monitor "
        f"makes daily sums, joined labels and weekly windows again from what is left."
    )


def _moment(option: str, text: str | None, zone: str) -> datetime | None:
    """A time; one without a zone is in the model's."""
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise Mistake(f"{option} {text!r} is no time: write 2027-01-31, or 2027-01-31T18:00:00+01:00") from None
    return time if time.tzinfo else time.replace(tzinfo=ZoneInfo(zone))


# ── the platform and the project ──────────────────────────────────────────────────────────────────


@command("new ../churn", PLATFORM)
def new(
    folder: Annotated[str, Argument(parser=_target, metavar="FOLDER", help="That is not there yet.")],
    remote: Annotated[
        str | None, Option(metavar="URL", help="Of its DVC remote; else a folder of the project.")
    ] = None,
    example: Annotated[str | None, Option(help="One of examples/, to begin with.")] = None,
) -> None:
    """Make a project of your own: the platform without the example, a Git repository with a first commit."""
    from deployments.tools import project

    for line in project.new(Path(folder).resolve(), remote, example):
        print(line)


@command("upgrade --from ../evergreen", PLATFORM)
def upgrade(
    source: Annotated[
        str | None, Option("--from", parser=_source, metavar="FOLDER|URL", help="Else where the project came from.")
    ] = None,
) -> None:
    """Merge a newer platform into this project; models, params.yaml and data stay as they are."""
    from deployments.tools import project

    for line in project.upgrade(source):
        print(line)


@command("doctor", PLATFORM)
def doctor(as_json: Json = False) -> int:
    """Look at every part that this machine needs, and say what mends it (exit code 3: one is not as it has to be)."""
    from deployments.tools import doctor

    findings = []
    for finding in doctor.examine(_params()):
        findings.append(finding)
        if not as_json:
            print(finding, flush=True)
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    return 0 if all(finding.is_well for finding in findings) else ATTENTION


@command("up --detach", PLATFORM)
def up(
    detach: Annotated[bool, Option("--detach", help="In the background; returns when it is ready.")] = False,
    only: Annotated[
        str | None, Option(metavar="SERVICES", help="Of this machine, such as worker,router (EVERGREEN_SERVICES).")
    ] = None,
) -> int:
    """Start the platform: Prefect, a worker, MLflow, the router, the watcher. Ctrl-C ends it."""
    from deployments.local import services, supervisor

    if only is not None:
        os.environ[services.CHOSEN] = only
    return supervisor.detach() if detach else supervisor.up()


@command("backup ../evergreen-2026-12-01", PLATFORM)
def backup(
    to: Annotated[str, Argument(parser=_target, metavar="FOLDER", help="That is not there yet.")],
) -> None:
    """Copy the project, code, data and state, to a folder, while the platform runs; flows wait meanwhile."""
    from deployments.tools import backup

    for line in backup.backup(Path(to).resolve()):
        print(line)


@command("restore ../evergreen-2026-12-01 ../evergreen", PLATFORM)
def restore(
    source: Annotated[str, Argument(parser=_source, metavar="BACKUP", help="Made by evergreen backup.")],
    to: Annotated[str, Argument(parser=_target, metavar="FOLDER", help="That is not there yet.")],
) -> None:
    """Copy a backup to a folder, and compare every file with what the backup held."""
    from deployments.tools import backup

    for line in backup.restore(Path(source).resolve(), Path(to).resolve()):
        print(line)


@command("down", PLATFORM)
def down() -> int:
    """End the platform of this checkout."""
    from deployments.local import supervisor

    return supervisor.down()


@command("status", PLATFORM)
def status(as_json: Json = False) -> int:
    """Show each service, the flow runs under way, and what stands in the way. Exit code 3: not all is well."""
    from deployments.local import status

    now = status.read()
    _print(asdict(now), as_json, now.lines())
    return 0 if now.all_is_well else ATTENTION


@command("register", PLATFORM)
def register() -> None:
    """Register the flows with the Prefect server that PREFECT_API_URL names."""
    from deployments.orchestration import registration

    for line in registration.deploy(_params()):
        print(line, flush=True)


@command("page", PLATFORM)
def page() -> None:
    """Write the status page once, to var/status/index.html; `evergreen up` keeps it current."""
    from deployments.status_page import page

    print(page.write())


@command("year --rows 60", PLATFORM, needs_models=True)
def year(
    first: Annotated[int, Option(help="Partitions that are there from the start.")] = 4,
    until: Annotated[int, Option(help="Partitions in all.")] = 12,
    rows: Annotated[int, Option(help="Requested of each model for each day, at most.")] = 60,
) -> None:
    """Simulate a year on a platform that is up, in a checkout without data: deliveries, requests, labels, rollouts."""
    from deployments.tools import simulate_year

    simulate_year.run(_params(), first, until, rows)


@command("env --shell bash", PLATFORM)
def env(
    shell: Annotated[Literal["bash", "zsh"] | None, Option(help="Also its completion of `evergreen`.")] = None,
) -> None:
    """Print the project's environment as shell commands, for `eval`."""
    print(settings.exports())
    if shell:
        os.environ["_EVERGREEN_COMPLETE"] = f"source_{shell}"  # how typer is asked for it
        main([])


if __name__ == "__main__":
    sys.exit(main())
