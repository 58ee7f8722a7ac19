"""`make bench-cycle`: a cycle of Evergreen beside a bare script that does the same work, in one run, on the same files.

Whole processes, from their start to their exit; the two sides take turns. The figure to keep is the ratio. What is run:
benchmarks/inside.py (the flows ingest and train, against a Prefect server that is up already, in a scratch copy of
this project) and benchmarks/bare.py (one script). Then the platform of `make up`: benchmarks/arrival.py.

    python -m benchmarks.cycle [--repeat 3] [--page docs/benchmarks/cycle.md] [--profile FOLDER] [--platform]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import arrival
from benchmarks.machine import machine
from tasks.ground import http, settings

ROOT = Path(__file__).resolve().parent.parent
MODEL = "flight_delay"
COPIED = (
    "tasks",
    "flows",
    "deployments",
    "models",
    "benchmarks",
    ".dvc/config",
    ".dvcignore",
    ".gitignore",
    "dvc.yaml",
)
COPIED += ("params.yaml", "requirements.lock", "pyproject.toml")
PACKAGES = ("prefect", "dvc", "great-expectations", "scikit-learn", "mlflow", "bentoml", "pandas", "skops")
NOTHING = "nothing to do"
MUST_NOT = ("great_expectations", "mlflow", "sklearn")


# ── one process ───────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Timing:
    """One process, from start to exit."""

    wall: float
    cpu: float
    """User and system, of the process and of those it started and waited for."""
    load: float
    """The machine's load average just before: on an idle one it is what the run before left."""
    parts: dict[str, float] = field(default_factory=dict)
    total: dict[str, float] = field(default_factory=dict)


def run(command: list[str], environment: dict[str, str], cwd: Path, marks: Path) -> tuple[Timing, dict]:
    """Run a process to its end; gives its timing and what it wrote to BENCH_MARKS.

    Raises:
        SystemExit: it failed.
    """
    marks.unlink(missing_ok=True)
    load, log = os.getloadavg()[0], marks.with_suffix(".log")
    with log.open("wb") as out:
        begin = time.time()
        environment = {**environment, "BENCH_BEGIN": str(begin), "BENCH_MARKS": str(marks)}
        process = subprocess.Popen(command, env=environment, cwd=cwd, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        end = time.time()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}:\n{log.read_text()[-6000:]}")
    told = json.loads(marks.read_text()) if marks.exists() else {}
    parts = dict(told.get("parts", {}))
    if parts:
        parts["exit"] = end - begin - sum(parts.values())
    return Timing(end - begin, usage.ru_utime + usage.ru_stime, load, parts, told.get("total", {})), told


# ── where it happens ──────────────────────────────────────────────────────────────────────────────


class Scratch:
    """A folder with the landed files, a Prefect server, and a place for projects and scripts to run in."""

    def __init__(self, folder: Path, threads: str | None) -> None:
        self.folder, self.threads = folder, threads
        self.profile: Path | None = None
        self.api = ""
        self._deliver()

    def _deliver(self) -> None:
        from models import upstream

        for partition in upstream.partitions()[:10]:
            for dataset in upstream.DATASETS:
                name, content = upstream.deliver(dataset, partition)
                target = self.folder / "delivered" / dataset / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
                os.utime(target, (time.time() - 60,) * 2)  # it has arrived: ingest need not wait for it to settle

    def environment(self, root: Path) -> dict[str, str]:
        """What a worker's environment has: nothing of Evergreen but where the project and the API are."""
        ours = ("EVERGREEN_", "PREFECT_", "MLFLOW_", "BENTOML_", "DVC_", "PYTHON", "OMP_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        kept |= {"EVERGREEN_ROOT": str(root), "PYTHONPATH": str(root), "PREFECT_API_URL": self.api}
        kept |= {
            "PREFECT_HOME": str(self.folder / "prefect"),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
        }
        kept["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
        return kept | (dict.fromkeys(("OMP_NUM_THREADS", "EVERGREEN_THREADS"), self.threads) if self.threads else {})

    def project(self, name: str, models: list[str]) -> Project:
        """A fresh copy of this project that has these models, nothing cached, byte code made."""
        root = self.folder / name
        shutil.rmtree(root, ignore_errors=True)
        for path in COPIED:
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / path).is_dir():
                shutil.copytree(ROOT / path, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copyfile(ROOT / path, target)
        _keep_models(root, models)
        git = ["git", "-c", "user.name=bench", "-c", "user.email=bench@localhost", "-C", str(root)]
        for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "bench"]):
            subprocess.run([*git, *words], check=True, capture_output=True)
        subprocess.run([sys.executable, "-m", "compileall", "-q", str(root)], check=True)
        return Project(self, root)

    @contextmanager
    def prefect_server(self) -> Iterator[None]:
        """A server with a database of its own, on a free port of 127.0.0.1."""
        port = http.free_port()
        self.api = f"http://127.0.0.1:{port}/api"
        environment = {**settings.environment(), **self.environment(self.folder)}
        command = [
            str(Path(sys.executable).parent / "prefect"),
            "server",
            "start",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        ]
        with (self.folder / "server.log").open("wb") as log:
            server = subprocess.Popen(command, env=environment, cwd=self.folder, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 120
            while not http.answers(f"{self.api}/health"):
                if server.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"the Prefect server does not answer:\n{(self.folder / 'server.log').read_text()[-3000:]}")
                time.sleep(0.2)
            yield
        finally:
            server.terminate()
            server.wait(timeout=60)

    def bare(self, months: range, out: str, *, threads: str | None = None, fresh: bool = False) -> Timing:
        """The bare script on these months."""
        landing, target = self.folder / "bare-landing", self.folder / out
        shutil.rmtree(landing, ignore_errors=True)
        if fresh:
            shutil.rmtree(target, ignore_errors=True)
        self.put(months, landing)
        environment = self.environment(ROOT)
        if threads == "any":
            environment.pop("OMP_NUM_THREADS", None)
        command = [sys.executable, "-m", "benchmarks.bare", str(landing), str(target)]
        return run(command, environment, ROOT, self.folder / "bare.json")[0]

    def put(self, months: range, landing: Path) -> None:
        """Have these months arrive."""
        for month in months:
            for dataset in ("flights", "weather"):
                name = f"{dataset}/2013-{month:02d}.csv"
                (landing / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(self.folder / "delivered" / name, landing / name)


@dataclass
class Project:
    """A copy of this project."""

    scratch: Scratch
    root: Path

    def arrive(self, months: range) -> None:
        """These months land."""
        self.scratch.put(months, self.root / "var" / "landing")

    def flows(self, *jobs: str, profile: str = "") -> tuple[Timing, dict]:
        """A fresh process runs these flows."""
        command = [sys.executable, "-m", "benchmarks.inside", *jobs]
        if profile and self.scratch.profile:
            command[1:1] = ["-m", "cProfile", "-o", str(self.scratch.profile / f"{profile}.prof")]
        return run(command, self.scratch.environment(self.root), self.root, self.scratch.folder / "inside.json")

    def command(self, *words: str) -> tuple[Timing, str]:
        """A fresh process of any command."""
        marks = self.scratch.folder / "command.json"
        environment = {**settings.environment(), **self.scratch.environment(self.root)}
        environment |= {"DVC_SITE_CACHE_DIR": str(self.root / "var" / "dvc")}
        return run(list(words), environment, self.root, marks)[0], marks.with_suffix(".log").read_text()


def _keep_models(root: Path, models: list[str]) -> None:
    import yaml

    said = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    for gone in set(said["models"]) - set(models):
        del said["models"][gone]
        shutil.rmtree(root / "models" / gone)
    (root / "params.yaml").write_text(yaml.safe_dump(said, sort_keys=False, allow_unicode=True), encoding="utf-8")


# ── what is measured ──────────────────────────────────────────────────────────────────────────────

Table = dict[str, list[Timing]]
"""What was run → its timings."""

Note = Callable[[str, Timing], None]

FULL, MONTH = "a full cycle, nothing cached (January–August)", "a new month (September)"
ASKED = "nothing changed: train, for the first time since something had"  # DVC itself is asked
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
        note(ASKED, _idle(project.flows(f"train:{MODEL}")))
        for _ in range(2):
            note(IDLE, _idle(project.flows(f"train:{MODEL}")))
        note(WHY, project.command(sys.executable, "-m", "tasks", "why", MODEL)[0])
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
                {"nothing changed, DVC asked": ASKED, "nothing changed": IDLE, "… ingest and both models": BOTH}, table
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
    for name, goal in ((ASKED, "≤ 3"), (IDLE, "≤ 3"), (BOTH, ""), (WHY, ""), (REPRO, "")):
        if timings := table.get(name):
            answers = [t.total["DVC: is anything to do?"] for t in timings if t.total]
            answer = f"{statistics.median(answers):.2f}" if answers else ""
            limit = "< 0.5" if name in (ASKED, IDLE) else ""  # both models are two answers
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
