"""`make bench-cycle`: a cycle of Evergreen beside a bare script that does the same work, in one run, on the same files.

Whole processes, from their start to their exit; the two sides take turns. The figure to keep is the ratio. What is run:
benchmarks/inside.py (the flows ingest and train, against a Prefect server that is up already, in a scratch copy of
this project) and benchmarks/bare.py (one script). Then the platform of `make up`: benchmarks/arrival.py.

    python -m benchmarks.cycle [--repeat 3] [--page docs/benchmarks/cycle.md] [--profile FOLDER] [--platform]
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import arrival
from benchmarks.machine import machine
from benchmarks.scratch import ROOT, Project, Scratch, Timing
from tasks.ground import settings

MODEL = "flight_delay"
PACKAGES = ("prefect", "dvc", "great-expectations", "scikit-learn", "mlflow", "bentoml", "pandas", "skops")
NOTHING = "nothing to do"
MUST_NOT = ("great_expectations", "mlflow", "sklearn")


# ── what is measured ──────────────────────────────────────────────────────────────────────────────

Table = dict[str, list[Timing]]
"""What was run → its timings."""

Note = Callable[[str, Timing], None]

FULL, MONTH = "a full cycle, nothing cached (January–August)", "a new month (September)"
REQUEST = "nothing changed: train, for the first time since something had"  # DVC itself is asked
IDLE, BOTH = "nothing changed: train", "nothing changed: ingest, and train of both models"
WHY, REPRO = "nothing changed: evergreen why", "nothing changed: dvc repro"
FEW, MANY = "a fourth month", "a tenth month"


def story(scratch: Scratch, repeat: int, openmp: bool) -> Table:
    """Each round goes through everything, from an empty project to a month that arrives; the sides take turns."""
    table: Table = {}

    def note(name: str, timing: Timing) -> None:
        table.setdefault(name, []).append(timing)
        told = ", ".join(f"{part} {s:.2f}" for part, s in sorted(timing.parts.items(), key=lambda p: -p[1])[:4])
        figures = f"{timing.wall:6.2f} s  (cpu {timing.cpu:.2f}, load before {timing.load:.1f})"
        print(f"  {name:<60} {figures}  {told}", flush=True)

    scratch.bare(range(1, 3), "warm", fresh=True)  # files and byte code into the page cache, and nobody's first time
    for number in range(repeat):
        print(f"round {number + 1} of {repeat}", flush=True)
        project = scratch.project("project", [MODEL])
        for phase, months, arriving in ((FULL, range(1, 9), range(1, 9)), (MONTH, range(1, 10), range(9, 10))):
            project.arrive(arriving)
            _sides(scratch, project, phase, months, note, bare_first=bool(number % 2))
            if openmp:
                note(f"{phase}: bare, two threads", scratch.bare(months, f"two{number}", threads="any"))
        note(REQUEST, _idle(project.flows(f"train:{MODEL}")))
        for _ in range(2):
            note(IDLE, _idle(project.flows(f"train:{MODEL}")))
        note(WHY, project.command(sys.executable, "-m", "deployments.cli", "why", MODEL)[0])
        note(REPRO, _up_to_date(project.command(str(Path(sys.executable).parent / "dvc"), "repro")))
        project.arrive(range(10, 11))
        note(MANY, _judged(project.flows("ingest", f"train:{MODEL}")))
        _few(scratch, note)
    return table


def _sides(scratch: Scratch, project: Project, phase: str, months: range, note: Note, *, bare_first: bool) -> None:
    def evergreen() -> None:
        note(f"{phase}: Evergreen", _judged(project.flows("ingest", f"train:{MODEL}")))

    def bare() -> None:
        note(f"{phase}: bare", scratch.bare(months, "bare", fresh=phase == FULL))

    for side in (bare, evergreen) if bare_first else (evergreen, bare):
        side()


def _few(scratch: Scratch, note: Note) -> None:
    """A fourth month after three: what a tenth after nine is compared with."""
    project = scratch.project("few", [MODEL])
    project.arrive(range(1, 4))
    project.flows("ingest", f"train:{MODEL}")
    project.arrive(range(4, 5))
    note(FEW, _judged(project.flows("ingest", f"train:{MODEL}")))


def both(scratch: Scratch, repeat: int, table: Table) -> None:
    """The project as it ships, up to date: a process that looks at everything and finds nothing to do."""
    models = ["flight_delay", "hourly_departures"]
    project = scratch.project("both", models)
    jobs = ["ingest", *(f"train:{model}" for model in models)]
    project.arrive(range(1, 4))
    project.flows(*jobs)
    for _ in range(2 * repeat):
        timing = _idle(project.flows(*jobs))
        table.setdefault(BOTH, []).append(timing)
        print(f"  {BOTH:<60} {timing.wall:6.2f} s", flush=True)


def profiles(scratch: Scratch) -> None:
    """Once more under cProfile, phase by phase, into files for `python -m pstats`. Not part of any figure."""
    project = scratch.project("profiled", [MODEL])
    for name, months in (("full", range(1, 9)), ("month", range(9, 10)), ("nothing", range(0))):
        project.arrive(months)
        project.flows("ingest", f"train:{MODEL}", profile=name)


def _judged(ran: tuple[Timing, dict]) -> Timing:
    timing, told = ran
    for state in told["states"]:
        if NOTHING in state["message"] or (state["job"] == "ingest" and "nothing new" in state["message"]):
            sys.exit(f"{state['job']} had nothing to do: this is not the cycle that was to be measured")
    return timing


def _idle(ran: tuple[Timing, dict]) -> Timing:
    timing, told = ran
    for state in told["states"]:
        if NOTHING not in state["message"] and "nothing new" not in state["message"]:
            sys.exit(f"{state['job']} did something although nothing had changed: {state['message']}")
    if loaded := [name for name in MUST_NOT if name in told["heavy"]]:
        sys.exit(f"nothing had changed, and {', '.join(loaded)} was imported")
    return timing


def _up_to_date(ran: tuple[Timing, str]) -> Timing:
    if "up to date" not in ran[1]:
        sys.exit(f"dvc repro did something although nothing had changed:\n{ran[1]}")
    return ran[0]


# ── what is told ──────────────────────────────────────────────────────────────────────────────────


def page(table: Table, waiting: arrival.Figures, state: str, repeat: int) -> str:
    """docs/benchmarks/cycle.md."""
    return "\n".join(
        [
            "# A cycle, beside a bare script",
            "",
            "Made by `make bench-cycle`; what is compared is told in `benchmarks/cycle.py`. Both sides read the same",
            "landed CSV files, run the same Great Expectations suites, the team's own rows and pipeline, the same",
            "metrics, intervals and pictures, and log and register in MLflow. Evergreen also versions the data and",
            "pushes it, keeps every stage's result, packages a Bento, tries it, judges the candidate and promotes it.",
            "",
            state,
            "",
            f"Seconds of whole processes, start to exit: median (minimum–maximum) of {repeat} round(s) in which the",
            "sides take turns. CPU is user and system, helper processes included, the Prefect server not.",
            "",
            *_ratios(table),
            "",
            "## Nothing changed",
            "",
            *_nothing(table),
            "",
            "## Does a new month cost more where there are more months?",
            "",
            *_growth(table),
            "",
            *_waiting(waiting),
            NEXT_SECTION,
            "",
            "Each moment belongs to one part, so columns add up; imports are told apart from the step that asked.",
            "",
            *_split({"full": f"{FULL}: Evergreen", "new month": f"{MONTH}: Evergreen"}, table),
            "",
            *_split(
                {"nothing changed, DVC asked": REQUEST, "nothing changed": IDLE, "… ingest and both models": BOTH},
                table,
            ),
            "",
            *_split({"bare, full": f"{FULL}: bare", "bare, new month": f"{MONTH}: bare"}, table),
            "",
        ]
    )


def _ratios(table: Table) -> Iterator[str]:
    yield "| | Evergreen | bare script | ratio | goal | CPU: Evergreen | bare |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for phase, goal in ((FULL, 1.5), (MONTH, 1.2)):
        ever, bare = table[f"{phase}: Evergreen"], table[f"{phase}: bare"]
        cpu = [f"{median(timings, 'cpu'):.1f}" for timings in (ever, bare)]
        yield _row(phase, spread(ever), spread(bare), f"**{median(ever) / median(bare):.2f}**", f"≤ {goal}", *cpu)
        rest = [statistics.median(t.wall - t.parts["exit"] for t in timings) for timings in (ever, bare)]
        yield _row("… without the exits", f"{rest[0]:.2f}", f"{rest[1]:.2f}", f"{rest[0] / rest[1]:.2f}", "", "", "")
        if other := table.get(f"{phase}: bare, two threads"):
            ratio = f"{median(ever) / median(other):.2f}"
            yield _row(
                "… a thread per core in the script", "", spread(other), ratio, "", "", f"{median(other, 'cpu'):.1f}"
            )


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _nothing(table: Table) -> Iterator[str]:
    yield "| a fresh process | seconds | goal | of which DVC's answer, with its import | goal |"
    yield "| --- | --- | --- | --- | --- |"
    for name, goal in ((REQUEST, "≤ 3"), (IDLE, "≤ 3"), (BOTH, ""), (WHY, ""), (REPRO, "")):
        if timings := table.get(name):
            answers = [t.total["DVC: is anything to do?"] for t in timings if t.total]
            answer = f"{statistics.median(answers):.2f}" if answers else ""
            limit = "< 0.5" if name in (REQUEST, IDLE) else ""  # both models are two answers
            yield _row(name.removeprefix("nothing changed: "), spread(timings), goal, answer, limit)
    yield ""
    yield f"Neither {', '.join(MUST_NOT[:-1])} nor {MUST_NOT[-1]} is imported (the benchmark fails if one is)."


def _growth(table: Table) -> Iterator[str]:
    yield "| | ingest | stage validate | stage prepare |"
    yield "| --- | --- | --- | --- |"
    for name, before in ((FEW, 3), (MANY, 9)):
        if timings := table.get(name):
            cells = [
                statistics.median(t.total[part] for t in timings)
                for part in ("collect and validate what was delivered", "stage validate", "stage prepare")
            ]
            yield _row(f"{name}, after {before}", *(f"{c:.2f}" for c in cells))


WAITING, NEXT_SECTION = "## What waiting costs", "## Where the time goes"


def _waiting(figures: arrival.Figures) -> list[str]:
    about = "The project as it ships, on a platform started by `make up DETACH=1`; told in `benchmarks/arrival.py`."
    return [WAITING, "", about, "", *arrival.table(figures), ""]


def _renew(page: Path, figures: arrival.Figures) -> None:
    """Only the section on waiting is written anew."""
    text = page.read_text(encoding="utf-8")
    before, after = text[: text.index(NEXT_SECTION)], text[text.index(NEXT_SECTION) :]
    page.write_text(before.split(WAITING)[0] + "\n".join(_waiting(figures)) + "\n" + after, encoding="utf-8")


def _split(columns: dict[str, str], table: Table) -> Iterator[str]:
    """A row per part, a column per phase: the mean of each part, so that columns add up."""
    kept = {title: table[name] for title, name in columns.items() if name in table}
    parts = {part for timings in kept.values() for t in timings for part in t.parts}
    means = {part: [statistics.fmean(t.parts.get(part, 0.0) for t in ts) for ts in kept.values()] for part in parts}
    yield f"| seconds, mean | {' | '.join(kept)} |"
    yield f"| --- |{' --- |' * len(kept)}"
    for part, values in sorted(means.items(), key=lambda item: -max(item[1])):
        if max(values) >= 0.02:
            yield f"| {part} | {' | '.join(f'{v:.2f}' if v >= 0.005 else '' for v in values)} |"
    yield f"| **sum** | {' | '.join(f'{sum(v[i] for v in means.values()):.2f}' for i in range(len(kept)))} |"


def median(timings: list[Timing], of: str = "wall") -> float:
    """The median of a kind of seconds."""
    return statistics.median(getattr(t, of) for t in timings)


def spread(timings: list[Timing]) -> str:
    """Median (minimum–maximum)."""
    walls = [t.wall for t in timings]
    return f"{statistics.median(walls):.2f} ({min(walls):.2f}–{max(walls):.2f})"


def measured_on(threads: str) -> str:
    """What it was measured on, in a paragraph."""
    return (
        f"{machine(PACKAGES)}\n"
        f"Byte code: {byte_code()}, compiled beforehand on both sides.\n"
        f"OMP_NUM_THREADS={threads} on both sides, as Evergreen sets it (OpenMP spins beside other work: on two\n"
        "threads, beside two busy processes, the same fit was seen to take 49 s instead of 4).\n"
        "Prefect's server was up, on SQLite."
    )


def byte_code() -> str:
    """Which share of the installed modules has its byte code."""
    packages = Path(os.__file__).parent / "site-packages" if sys.prefix == sys.base_prefix else _site()
    sources = [p for p in packages.rglob("*.py") if "-" not in p.stem]
    tag = sys.implementation.cache_tag
    made = sum((p.parent / "__pycache__" / f"{p.stem}.{tag}.pyc").exists() for p in sources)
    return f"{made / max(len(sources), 1):.0%} of {len(sources):,} installed modules"


def _site() -> Path:
    import sysconfig

    return Path(sysconfig.get_paths()["purelib"])


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3, help="rounds (3)")
    parser.add_argument(
        "--page", type=Path, default=ROOT / "docs" / "benchmarks" / "cycle.md", help="where the tables go"
    )
    parser.add_argument("--openmp", action="store_true", help="also the bare script with as many threads as cores")
    parser.add_argument(
        "--profile", type=Path, metavar="FOLDER", help="only run each phase once under cProfile, into FOLDER"
    )
    parser.add_argument("--platform", action="store_true", help="only what waiting costs: that section of the page")
    asked = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server ends with us
    threads = settings.environment()["OMP_NUM_THREADS"]
    compiled = [str(ROOT / name) for name in ("tasks", "flows", "models", "benchmarks")]
    subprocess.run([sys.executable, "-m", "compileall", "-q", *compiled], check=True)
    with tempfile.TemporaryDirectory(prefix="evergreen-bench-") as folder:
        scratch = Scratch(Path(folder), threads)
        with scratch.prefect_server():
            if asked.profile:
                asked.profile.mkdir(parents=True, exist_ok=True)
                scratch.profile = asked.profile.resolve()
                profiles(scratch)
                return 0
            waiting = arrival.measure(scratch, asked.repeat)
            print("\n".join(arrival.table(waiting)), flush=True)
            if asked.platform:
                _renew(asked.page, waiting)
                return 0
            table = story(scratch, asked.repeat, asked.openmp)
            both(scratch, asked.repeat, table)
    text = page(table, waiting, measured_on(threads), asked.repeat)
    asked.page.parent.mkdir(parents=True, exist_ok=True)
    asked.page.write_text(text, encoding="utf-8")
    print(f"\n{text}\nwritten to {asked.page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
