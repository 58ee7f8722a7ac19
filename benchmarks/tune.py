"""What a study of hyper-parameters is worth: one table for any number of processes and kills, speed, the gate's word.

`python -m benchmarks.tune --page docs/benchmarks/tune.md`; half an hour on two cores that nothing else uses.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.machine import machine
from benchmarks.scratch import Project, Scratch, run
from tasks.ground import settings

QUICK = "hourly_departures"
SEARCHED = {
    "space": {
        "learning_rate": {"low": 0.02, "high": 0.3, "log": True},
        "max_leaf_nodes": {"low": 7, "high": 63, "log": True},
        "min_samples_leaf": {"low": 5, "high": 100, "log": True},
    },
    "trials": 32,
    "budget_s": 100_000,
}
"""Of the model that is tried again and again."""

KILLS = 20
MODEL = "flight_delay"


def inside(workers: int) -> None:
    """One study of the quick model, from the start; prints what it came to."""
    settings.apply()
    from tasks.ground import params
    from tasks.lifecycle import tune

    times: list[float] = []
    request = tune.TuneRequest(workers=workers, configured=params.Tune.model_validate(SEARCHED))
    result = tune.run(
        QUICK,
        params.load(),
        request,
        lambda _: times.append(time.monotonic()),
        lambda line: print(line, file=sys.stderr),
    )
    wall = times[-1] - times[0] if times else 0.0  # without imports and the look at the space
    done = result.study
    print(json.dumps({"study": done.digest, "cpu": done.spent_s, "wall": wall, "trials": len(done.trials) - 1}))


def table(project: Project, workers: int) -> dict[str, Any]:
    """A study by so many processes; fresh, or what is in the journal goes on."""
    load = os.getloadavg()[0]
    printed = command(project, "benchmarks.tune", "--inside", str(workers))
    told: dict[str, Any] = json.loads(printed.strip().splitlines()[-1])
    return {**told, "workers": workers, "load": load}


def command(project: Project, module: str, *words: str) -> str:
    """What a module prints, as a fresh process in the project: with its own state, not that of this checkout."""
    marks = project.scratch.folder / "command.json"
    run([sys.executable, "-m", module, *words], project.scratch.environment(project.root), project.root, marks)
    return marks.with_suffix(".log").read_text()


def commit(project: Project) -> None:
    """Commit everything: what is in no commit is promoted by a person only."""
    git = ["git", "-c", "user.name=bench", "-c", "user.email=bench@localhost", "-C", str(project.root)]
    for words in (["add", "-A"], ["commit", "--allow-empty", "-qm", "as it is"]):
        subprocess.run([*git, *words], check=True, capture_output=True)


def forget(project: Project) -> None:
    """Remove the fits of the quick model."""
    for path in (project.root / "var" / "tune" / QUICK).glob("*"):
        path.unlink()


def killed(project: Project) -> dict[str, Any]:
    """A study whose processes are killed again and again, workers and now and then their parent."""
    environment = project.scratch.environment(project.root)
    words = [sys.executable, "-m", "benchmarks.tune", "--inside", "2"]
    draw, study, kills, parents = random.Random(0), None, 0, 0
    while kills < KILLS:
        if study is None or study.poll() is not None:
            study = subprocess.Popen(
                words, cwd=project.root, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        time.sleep(draw.uniform(0.3, 2))
        try:
            workers = psutil.Process(study.pid).children()
            if not workers:
                continue
            is_parent = draw.random() < 0.25
            (psutil.Process(study.pid) if is_parent else draw.choice(workers)).kill()
            kills, parents = kills + 1, parents + is_parent
        except psutil.NoSuchProcess:
            continue
    study.wait()
    deadline, left = time.monotonic() + 60, [0]
    while left and time.monotonic() < deadline:  # one that is still importing looks for its parent when it has
        time.sleep(1)
        left = [each.pid for each in psutil.process_iter(["cmdline"]) if _is_worker(each, project.root)]
    done = table(project, 2)
    (journal,) = (project.root / "var" / "tune" / QUICK).glob("fits-*.jsonl")
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    twice = len(lines) - len({(line["estimator"], line["fold"]) for line in lines})
    return {**done, "kills": kills, "parents": parents, "left": len(left), "twice": twice}


def _is_worker(process: psutil.Process, root: Path) -> bool:
    command = " ".join(process.info["cmdline"] or [])
    return "tasks.training.tuning.fits" in command and str(root) in command


def through_the_gate(project: Project) -> dict[str, Any]:
    """The shipped model becomes champion; then it is tuned, and the proposal trained and judged."""
    evergreen = "deployments.cli"
    commit(project)
    command(project, evergreen, "train", MODEL)
    begin = time.monotonic()
    printed = command(project, evergreen, "tune", MODEL, "--apply")
    wall = time.monotonic() - begin
    study = json.loads((project.root / "var" / "tune" / MODEL / "study.json").read_text())
    commit(project)
    command(project, evergreen, "train", MODEL)
    lines = (project.root / "var" / "verdicts" / f"{MODEL}.jsonl").read_text().splitlines()
    said = re.findall(r"^Trial .*|^Chosen .*|^That .*|^No trial .*", printed, re.MULTILINE)
    return {"study": study, "wall": wall, "said": said, "verdicts": [json.loads(line) for line in lines]}


def page(tables: list[dict[str, Any]], kills: dict[str, Any], gate: dict[str, Any]) -> str:
    """docs/benchmarks/tune.md."""
    first = tables[0]
    study, best = gate["study"], gate["study"]["trials"][gate["study"]["best"]]
    of_kills = (
        f"Of the {kills['kills']} kills {kills['parents']} were of the parent, the others of workers. {kills['left']} "
        f"processes were left behind, {kills['twice']} fits that had ended were made again: a kill loses the fit of a "
        f"fold that each killed process was at, a quarter of a trial."
    )
    calm = (
        "The machine was calm."
        if all(each["load"] < 0.7 for each in tables)
        else "The machine was not calm: other work shared its two cores, so that the wall times say little. By a clock "
        "that only the fits move, two processes are 1.95 times as quick as one, and four 3.7 times "
        "(tests/tasks/training/tuning/test_study.py)."
    )
    of_gate = (
        f"{MODEL} as it ships becomes champion on the first nine months, of which September is the holdout. `evergreen "
        f"tune {MODEL} --apply` searches {len(study['trials']) - 1} trials on {study['rows']:,} training rows "
        f"({', '.join(study['folds'])}) in {study['cpu_seconds']:,.0f} CPU seconds; ended by the {study['ended_by']}. "
        f"The proposal: `{best['params']}`."
    )
    lines = [
        "# Tuning",
        "",
        f"`make bench-tune`. {machine(['optuna', 'scikit-learn', 'numpy'])}",
        "",
        "## One table, whoever computes it",
        "",
        f"{first['trials']} trials of {QUICK} on four folds by time, pruned, from nothing.",
        "",
        "| processes | table of trials | CPU s | wall s | times as quick | load average before |",
        "| --- | --- | --- | --- | --- | --- |",
        *(
            f"| {each['workers']} | `{each['study']}` | {each['cpu']:.0f} | {each['wall']:.0f} | "
            f"{first['wall'] / each['wall']:.2f} | {each['load']:.1f} |"
            for each in tables
        ),
        f"| 2, killed {kills['kills']} times | `{kills['study']}` | {kills['cpu']:.0f} | | | |",
        "",
        of_kills,
        "",
        calm,
        "",
        "## Tuned against untuned, through the gate",
        "",
        of_gate,
        "",
        *(f"> {line}" for line in gate["said"]),
        "",
        "Then `evergreen train` judges it against the champion on September, which no trial has read:",
        "",
        *(f"> {_summary(verdict)}" for verdict in gate["verdicts"][1:]),
    ]
    return "\n".join(lines) + "\n"


def _summary(verdict: dict[str, Any]) -> str:
    return str(verdict.get("summary") or verdict.get("verdict", {}).get("summary") or verdict)


def main() -> None:
    """Measure, print, and write the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--inside", type=int, help="so many processes; used by this module itself")
    parser.add_argument("--page", type=Path)
    arguments = parser.parse_args()
    if arguments.inside:
        inside(arguments.inside)
        return
    with tempfile.TemporaryDirectory(prefix="evergreen-tune-") as folder:
        scratch = Scratch(Path(folder), None)
        with scratch.prefect_server():
            project = scratch.project("project", [MODEL, QUICK])
            project.arrive(range(1, 10))
            command(project, "deployments.cli", "ingest")
            gate = through_the_gate(project)
            print(json.dumps({**gate, "study": gate["study"]["lead"]}, indent=1), flush=True)
            command(project, "deployments.cli", "train", QUICK)
        tables = []
        for workers in (1, 2, 4):
            forget(project)
            tables.append(table(project, workers))
            print(tables[-1], flush=True)
        forget(project)
        kills = killed(project)
        print(kills, flush=True)
    text = page(tables, kills, gate)
    print(text)
    if arguments.page:
        arguments.page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
