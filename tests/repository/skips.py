"""Kinds of change to a project, each with what must be redone: nothing, or a stage and what follows from it.

`CASES` says the truth (`must`) and what is redone (`redoes`); test_skip.py holds both against real runs, and
skip_table.py writes them down for people. The project has two quick models: `tiny` is looked at, `twin` is the other.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conftest import REPOSITORY, Project, copy_repository, write_readings

STAGES = ("environment", "validate", "prepare", "train", "evaluate", "package")

RAN = {stage: f"{stage}@tiny" for stage in STAGES}


@dataclass(frozen=True)
class Case:
    """One kind of change."""

    kind: str
    change: Callable[[Copy], object]
    must: str | None
    """The first stage whose result can differ; None when nothing may have to be redone."""
    redoes: tuple[str, ...] = ()
    """The stages whose step is called."""
    why: str = ""
    """Of a needless redo, or of none: what a reader would ask."""
    gives_back: bool = False
    """Whether results come back from the cache."""
    installed: dict[str, str] = field(default_factory=dict)
    """Packages that are installed in another version."""


@dataclass(frozen=True)
class Copy(Project):
    """A copy of the warmed project, and what can be done to it."""

    runner: Runner
    installed: dict[str, str] = field(default_factory=dict)

    def write(self, path: str, text: str) -> None:
        """A file, and its folder."""
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text, encoding="utf-8")

    def append(self, path: str, text: str) -> None:
        """More at the end of a file."""
        self.write(path, (self.root / path).read_text(encoding="utf-8") + text)

    def remove(self, *paths: str) -> None:
        """Files or folders."""
        for path in paths:
            target = self.root / path
            shutil.rmtree(target) if target.is_dir() else target.unlink()

    def add(self) -> None:
        """A data version of what lies in data/."""
        self.runner.do("add", self.root)

    def reproduce(self) -> dict[str, Any]:
        """Bring tiny up to date."""
        return self.runner.do("reproduce", self.root, installed=self.installed)

    def object_of(self, path: str) -> Path:
        """Where the cache keeps a file."""
        from tasks.ground import files

        hash_ = files.md5(self.root / path)
        return self.root / ".dvc" / "cache" / "files" / "md5" / hash_[:2] / hash_[2:]

    def another(self, name: str = "another") -> Copy:
        """A second checkout of the same files, which has made nothing yet."""
        root = self.root.parent / name
        sources(self.root, root)
        subprocess.run(["git", "init", "-q"], cwd=root, check=True)
        shutil.copy(self.root / "dvc.lock", root)
        return Copy(root, self.runner, self.installed)


class Runner:
    """The process that forks for each run (skip_runner.py)."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        command = [sys.executable, str(Path(__file__).with_name("skip_runner.py"))]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self.process.stdout
        assert self.process.stdout.readline() == "ready\n"

    def do_all(self, *requests: dict[str, Any]) -> list[dict[str, Any]]:
        """Several at once."""
        assert self.process.stdin
        assert self.process.stdout
        lines = [{**request, "answer": str(self.scratch / f"answer-{n}.json")} for n, request in enumerate(requests)]
        print(json.dumps(lines), file=self.process.stdin, flush=True)
        answers: list[dict[str, Any]] = json.loads(self.process.stdout.readline())
        for answer in answers:
            assert "error" not in answer, answer["error"]
        return answers

    def do(self, what: str, root: Path, models: tuple[str, ...] = ("tiny",), **more: Any) -> dict[str, Any]:
        """One."""
        return self.do_all({"do": what, "root": str(root), "models": models, **more})[0]

    def close(self) -> None:
        """End it."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


# ── the project ───────────────────────────────────────────────────────────────────────────────────

HELPERS = {
    "models/tiny/rows/__init__.py": """\
\"\"\"Readings → one row per pump and time.\"\"\"

from __future__ import annotations

from pathlib import Path

import pandas as pd

from models.tiny.rows.labels import label, weekday


def rows(tables: dict[str, pd.DataFrame], fails_above: float) -> pd.DataFrame:
    \"\"\"The features, and `label` (fails: 1), `time` and `id` of each reading.\"\"\"
    readings = tables["readings"]
    offsets = pd.read_csv(Path(__file__).with_name("offsets.csv"), index_col="station")["offset"]
    failed = label(readings["failures"], readings["starts"], fails_above)
    return readings[["station", "hour", "starts", "vibration"]].assign(
        pressure=readings["pressure"] + readings["station"].map(offsets),
        weekday=weekday(readings["at"]),
        label=failed,
        time=readings["at"],
        id=readings["station"] + readings["at"].dt.strftime("%Y%m%d%H"),
    )
""",
    "models/tiny/rows/labels.py": """\
\"\"\"What counts as a failure, and which day it is.\"\"\"

from __future__ import annotations

import pandas as pd

from models.tiny.rows.limits import FIRST


def label(failures: pd.Series, starts: pd.Series, above: float, often: int = 5) -> pd.Series:
    \"\"\"1 where there was more trouble than allowed: a failure counts twice, starting often once.\"\"\"
    return (failures * 2 + (starts > often) > above).astype("int64")


def weekday(at: pd.Series) -> pd.Series:
    \"\"\"1 to 7.\"\"\"
    return (at.dt.day_of_week + FIRST - 1) % 7 + 1
""",
    "models/tiny/rows/limits.py": '"""Numbers."""\n\nFIRST = 1  # Monday\n',
    "models/tiny/rows/offsets.csv": "station,offset\nnorth,0.0\nsouth,0.1\n",
}


def make_project(root: Path) -> Path:
    """Two models on two datasets; the rows of the first have helpers and a table of their own."""
    copy_repository(root, REPOSITORY / "tests" / "small")
    text = (root / "params.yaml").read_text(encoding="utf-8")
    head, tiny = text.split("  tiny:\n")
    twin = tiny.replace("readings: partition", "meters: partition")
    (root / "params.yaml").write_text(f"{head}  tiny:\n{tiny}\n  twin:\n{twin}", encoding="utf-8")
    shutil.copytree(root / "models" / "tiny", root / "models" / "twin")
    (root / "models/twin/expectations/readings.yaml").rename(root / "models/twin/expectations/meters.yaml")
    rows = root / "models/twin/rows/__init__.py"
    rows.write_text(rows.read_text().replace('tables["readings"]', 'tables["meters"]'))
    for path, content in HELPERS.items():
        (root / path).write_text(content, encoding="utf-8")
    for month in (1, 2, 3):
        write_readings(root, month)
    shutil.copytree(root / "data" / "readings", root / "data" / "meters")
    return root


def sources(root: Path, target: Path) -> Path:
    """What a person or git keeps of a project, in another folder: nothing that was made."""
    made = {".git", "build", "var", "dvc.lock", "cache", "tmp", "__pycache__"}
    return Path(shutil.copytree(root, target, ignore=lambda _, names: made & set(names)))


# ── the changes ───────────────────────────────────────────────────────────────────────────────────

ROWS, LABELS = "models/tiny/rows/__init__.py", "models/tiny/rows/labels.py"
FROM_PREPARE = ("prepare", "train", "evaluate", "package")
FROM_TRAIN = FROM_PREPARE[1:]
TINY, TWIN = slice(0, 1), slice(1, 2)


def edit(path: str, old: str, new: str) -> Callable[[Copy], None]:
    """Replace a text in a file."""
    return lambda copy: copy.edit(path, old, new)


def of_model(old: str, new: str, which: int = 1) -> Callable[[Copy], None]:
    """Replace a text in the section of the first or the second model of params.yaml."""

    def change(copy: Copy) -> None:
        parts = (copy.root / "params.yaml").read_text(encoding="utf-8").split("    about: Will this pump")
        assert old in parts[which], old
        parts[which] = parts[which].replace(old, new)
        copy.write("params.yaml", "    about: Will this pump".join(parts))

    return change


def of_lock(package: str, version: str) -> Callable[[Copy], None]:
    """Bump a package in requirements.lock."""

    def change(copy: Copy) -> None:
        lines = (copy.root / "requirements.lock").read_text(encoding="utf-8").splitlines()
        (at,) = [n for n, line in enumerate(lines) if line.startswith(f"{package}==")]
        lines[at] = f"{package}=={version} \\"
        copy.write("requirements.lock", "\n".join(lines) + "\n")

    return change


def both(*changes: Callable[[Copy], object]) -> Callable[[Copy], None]:
    """One after the other."""
    return lambda copy: [change(copy) for change in changes] and None


def added(copy: Copy) -> None:
    """A data version of what lies there."""
    copy.add()


def new_partition(copy: Copy) -> None:
    """April."""
    write_readings(copy.root, 4)


def other_bytes(copy: Copy) -> None:
    """March, without its first row."""
    path = copy.root / "data/readings/2013-03.csv"
    head, _, *rest = path.read_text().splitlines()
    path.write_text("\n".join([head, *rest]) + "\n", encoding="utf-8")


def touched(copy: Copy) -> None:
    """Every file of data and code has a new modification time."""
    for folder in ("data", "tasks", "models", "build"):
        for path in (copy.root / folder).rglob("*"):
            os.utime(path)


def reordered(copy: Copy) -> None:
    """The models, the keys of each and its features, the other way round."""
    import yaml

    said = yaml.safe_load((copy.root / "params.yaml").read_text(encoding="utf-8"))

    def backwards(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: backwards(value[key]) for key in reversed(value)}
        return value

    copy.write("params.yaml", yaml.safe_dump(backwards(said), sort_keys=False))


def uncached(path: str) -> Callable[[Copy], None]:
    """The cache loses a file."""
    return lambda copy: copy.object_of(path).unlink()


def rotten(path: str) -> Callable[[Copy], None]:
    """A file of the cache gets other bytes, with its size and its mode."""

    def change(copy: Copy) -> None:
        object_ = copy.object_of(path)
        content = bytearray(object_.read_bytes())
        content[len(content) // 2] ^= 1
        object_.chmod(0o644)
        object_.write_bytes(content)
        object_.chmod(0o444)

    return change


def without(*paths: str) -> Callable[[Copy], None]:
    """Files or folders are gone."""
    return lambda copy: copy.remove(*paths)


def undone(copy: Copy) -> None:
    """An edit, what follows from it, and the edit undone."""
    before = (copy.root / "params.yaml").read_text(encoding="utf-8")
    of_model("fails_above: 0", "fails_above: 1")(copy)
    copy.reproduce()
    copy.write("params.yaml", before)


def a_neighbour_edits(copy: Copy) -> None:
    """Another checkout with the same cache trains something else."""
    other = copy.another()
    other.write(".dvc/config.local", f"[cache]\n    dir = {copy.root / '.dvc' / 'cache'}\n")
    of_model("C: 1.0", "C: 3.0")(other)
    other.reproduce()


def in_a_second_checkout(copy: Copy) -> None:
    """This one has nothing but the first one's cache."""
    first = copy.another("first")
    shutil.rmtree(first.root / ".dvc" / "cache", ignore_errors=True)
    for made in (".dvc/cache", "build", "var"):
        if made == ".dvc/cache":
            shutil.move(copy.root / made, first.root / made)
        else:
            shutil.rmtree(copy.root / made)
    copy.write(".dvc/config.local", f"[cache]\n    dir = {first.root / '.dvc' / 'cache'}\n")


def moved(copy: Copy) -> None:
    """DVC's own files on this folder are gone, and every file has another inode."""
    for name in ("tasks", "models", "data", "build"):
        shutil.copytree(copy.root / name, copy.root / f"{name}-copied")
        shutil.rmtree(copy.root / name)
        (copy.root / f"{name}-copied").rename(copy.root / name)
    shutil.rmtree(copy.root / "var" / "dvc")


def left_by_a_kill(copy: Copy) -> None:
    """A stage was killed while it wrote beside its output."""
    copy.write("build/tiny/.rows.1-1.tmp/2013-01.parquet", "half")
    copy.write("data/readings/.2013-09.csv.1-1.tmp", "half")


def byte_code(copy: Copy) -> None:
    """What Python and editors leave among sources."""
    copy.write("models/tiny/rows/__pycache__/__init__.cpython-311.pyc", "x")
    copy.write("models/tiny/pipeline/.ipynb_checkpoints/x.py", "x")


def third_model(copy: Copy) -> None:
    """Another folder, another entry."""
    shutil.copytree(copy.root / "models/twin", copy.root / "models/third")
    text = (copy.root / "params.yaml").read_text(encoding="utf-8")
    copy.append("params.yaml", "\n  third:\n" + text.split("  twin:\n")[1])


def other_dataset(copy: Copy) -> None:
    """A partition that tiny does not read."""
    made = write_readings(copy.root, 4)
    shutil.move(made, copy.root / "data/meters/2013-04.csv")


MEMO = "its outputs come out equal, and what follows is left alone"

OF_SOURCES = [
    # what a model is made of
    Case(
        "a constant in a helper that the rows import indirectly",
        edit("models/tiny/rows/limits.py", "FIRST = 1", "FIRST = 3"),
        "prepare",
        ("environment", *FROM_PREPARE),
    ),
    Case(
        "a default argument of a helper",
        edit(LABELS, "often: int = 5", "often: int = 4"),
        "prepare",
        ("environment", *FROM_PREPARE),
    ),
    Case(
        "the model's feature code",
        edit(ROWS, 'weekday(readings["at"])', 'weekday(readings["at"]) // 2 + 1'),
        "prepare",
        ("environment", *FROM_PREPARE),
    ),
    Case(
        "a table that the feature code reads",
        edit("models/tiny/rows/offsets.csv", "0.1", "0.4"),
        "prepare",
        ("environment", *FROM_PREPARE),
    ),
    Case(
        "a new helper file that the feature code uses",
        both(
            lambda c: c.write("models/tiny/rows/shift.py", "SHIFT = 2\n"),
            edit(ROWS, 'weekday(readings["at"])', 'weekday(readings["at"]) * 0 + SHIFT'),
            edit(ROWS, "weekday\n", "weekday\nfrom models.tiny.rows.shift import SHIFT\n"),
        ),
        "prepare",
        ("environment", *FROM_PREPARE),
    ),
    Case(
        "the model's pipeline",
        edit("models/tiny/pipeline/__init__.py", "SimpleImputer()", 'SimpleImputer(strategy="median")'),
        "train",
        ("environment", *FROM_TRAIN),
    ),
    Case(
        "the expectation suite",
        edit("models/tiny/expectations/readings.yaml", "min_value: 50", "min_value: 60"),
        "validate",
        ("validate", "prepare"),
        "the same partitions pass: their list and the rows come out equal",
    ),
    Case(
        "a constant in a step's helper (tasks/modelling/profile.py)",
        edit("tasks/modelling/profile.py", "GRID = 21", "GRID = 11"),
        "train",
        ("train", "evaluate", "package"),
    ),
    Case(
        "a constant two imports away (evaluate → plots → metrics)",
        edit("tasks/modelling/metrics.py", "BINS = 10", "BINS = 7"),
        "train",
        ("train", "evaluate", "package"),
    ),
    Case(
        "the service that is packaged",
        edit(
            "tasks/runtime/bento_service.py",
            '"""',
            '"""\n',
        ),
        "package",
        ("package",),
        "its text is in the release",
    ),
    Case("the other model's code", lambda c: c.append("models/twin/rows/__init__.py", "\nX = 1\n"), None),
    Case(
        "the gate's code",
        lambda c: c.append("tasks/release/gate/gate.py", "\nX = 1\n"),
        None,
        why="no stage judges: the flow judges again",
    ),
    Case("a flow", lambda c: c.append("flows/train.py", "\nX = 1\n"), None),
    # what only looks like a change
    Case(
        "a comment in feature code",
        lambda c: c.append(ROWS, "\n# a remark\n"),
        None,
        ("environment", "prepare"),
        f"DVC compares bytes; {MEMO}",
    ),
    Case(
        "formatting",
        edit(ROWS, "    failed = label", "\n    failed  =  label"),
        None,
        ("environment", "prepare"),
        f"DVC compares bytes; {MEMO}",
    ),
    Case(
        "a docstring",
        edit(LABELS, "What counts as a failure,", "A failure,"),
        None,
        ("environment", "prepare"),
        f"DVC compares bytes; {MEMO}",
    ),
    Case(
        "a renamed local variable",
        edit(ROWS, "failed", "broken"),
        None,
        ("environment", "prepare"),
        f"DVC compares bytes; {MEMO}",
    ),
    Case(
        "a comment in a step",
        lambda c: c.append("tasks/training/train.py", "\n# a remark\n"),
        None,
        ("train",),
        f"DVC compares bytes; {MEMO}",
    ),
    Case(
        "a comment in what every step imports, and the release takes along",
        lambda c: c.append("tasks/ground/files.py", "\n# a remark\n"),
        "package",
        STAGES,
        "DVC compares bytes; all but the release come out equal",
    ),
    Case(
        "a comment in the expectation suite",
        lambda c: c.append("models/tiny/expectations/readings.yaml", "\n# a remark\n"),
        None,
        ("validate", "prepare"),
        f"DVC compares bytes; {MEMO}",
    ),
    Case(
        "an added file that nothing uses, among the feature code",
        lambda c: c.write("models/tiny/rows/unused.py", "X = 1\n"),
        None,
        ("environment", "prepare"),
        "whether a file is read cannot be known",
    ),
    Case("an added file that nothing uses, elsewhere", lambda c: c.write("models/tiny/notes.md", "# Notes\n"), None),
    Case("byte code and an editor's leavings among sources", byte_code, None),
    Case("new modification times of everything", touched, None),
    Case("every file copied anew, DVC's own files lost", moved, None),
    Case("what a killed stage left beside its output", left_by_a_kill, None),
    # parameters
    Case("a hyper-parameter of this model", of_model("C: 1.0", "C: 2.0"), "train", ("train", "evaluate", "package")),
    Case("a hyper-parameter of the other model", of_model("C: 1.0", "C: 2.0", 2), None),
    Case("the seed", of_model("seed: 0", "seed: 1"), "train", ("train", "evaluate", "package")),
    Case("an option of the feature code", of_model("fails_above: 0", "fails_above: 1"), "prepare", FROM_PREPARE),
    Case("the split", of_model("holdout: 1", "holdout: 2"), "prepare", FROM_PREPARE),
    Case(
        "a limit of a feature",
        of_model("max: 23", "max: 24"),
        "package",
        ("prepare", "train", "evaluate", "package"),
        "one key for all that concerns a feature",
    ),
    Case(
        "how it is evaluated",
        of_model("resamples: 100", "resamples: 120"),
        "prepare",
        ("prepare", "evaluate"),
        "rows keep the columns of evaluate.slices: they come out equal, and the release holds no interval",
    ),
    Case("how many rows a request may have", of_model("max_rows: 50", "max_rows: 60"), "package", ("package",)),
    Case(
        "a rule of the gate",
        of_model("margin: 0.01", "margin: 0.02"),
        None,
        why="no stage judges: the flow judges again",
    ),
    Case(
        "the landing zone, or when a file has settled",
        edit("params.yaml", "settle_seconds: 0", "settle_seconds: 5"),
        None,
    ),
    Case("whether flows commit", edit("params.yaml", "upstream: null", "upstream: null\ngit: {commit: true}"), None),
    Case("a number written another way", of_model("C: 1.0", "C: 1"), None),
    Case("a comment in params.yaml", lambda c: c.append("params.yaml", "\n# a remark\n"), None),
    Case("a third model", third_model, None),
    Case("the order of everything in params.yaml", reordered, None, why="columns are in the order of their names"),
    Case(
        "a description in dvc.yaml",
        edit(
            "dvc.yaml",
            "      cmd: python -m tasks train",
            "      desc: fits the pipeline\n      cmd: python -m tasks train",
        ),
        None,
    ),
    # data
    Case("a new partition", both(new_partition, added), "validate", ("validate", *FROM_PREPARE)),
    Case(
        "a partition of the same name with other bytes",
        both(other_bytes, added),
        "validate",
        ("validate", *FROM_PREPARE),
    ),
    Case(
        "a partition taken out",
        both(without("data/readings/2013-03.csv"), added),
        "validate",
        ("validate", *FROM_PREPARE),
    ),
    Case(
        "a partition of another dataset",
        both(other_dataset, added),
        None,
        ("validate",),
        "data/ is one version; the list of this model's partitions comes out equal",
    ),
    # the locked environment
    Case(
        "a bumped package that fitting stands on",
        of_lock("joblib", "99.0"),
        "train",
        ("environment", *FROM_TRAIN),
        installed={"joblib": "99.0"},
    ),
    Case(
        "a bumped package that only draws",
        of_lock("pillow", "99.0"),
        "evaluate",
        ("environment", "evaluate"),
        "a picture of today is equal",
        installed={"pillow": "99.0"},
    ),
    Case(
        "a bumped package that only validates",
        of_lock("marshmallow", "3.99"),
        "validate",
        ("environment", "validate"),
        "the same partitions pass",
        installed={"marshmallow": "3.99"},
    ),
    Case(
        "a bumped package that no step stands on",
        of_lock("prefect", "99.0"),
        None,
        ("environment",),
        "finding that out takes 0.3 s",
    ),
    Case(
        "a comment in requirements.lock",
        lambda c: c.append("requirements.lock", "\n# a remark\n"),
        None,
        ("environment",),
        "finding that out takes 0.3 s",
    ),
]

OF_WHAT_WAS_MADE = [
    Case("a deleted output", without("build/tiny/split.json"), None, gives_back=True),
    Case("a corrupted output", lambda c: c.append("build/tiny/model/training.json", " "), None, gives_back=True),
    Case(
        "an output with a file too many",
        lambda c: c.write("build/tiny/rows/2013-09.parquet", "x"),
        None,
        gives_back=True,
    ),
    Case("build/ removed", without("build"), None, gives_back=True),
    Case("var/ removed", without("var"), None),
    Case("dvc.lock lost", without("dvc.lock"), None, gives_back=True),
    Case("dvc.lock and build/ lost", without("dvc.lock", "build"), None, gives_back=True),
    Case(
        "an entry of the cache deleted",
        uncached("build/tiny/split.json"),
        None,
        why="the output is here: it is put into the cache again",
    ),
    Case(
        "the whole cache deleted",
        without(".dvc/cache"),
        None,
        why="the outputs are here: they are put into the cache again",
    ),
    Case("a corrupted file in the cache", rotten("build/tiny/model/model.skops"), None),
    Case(
        "an output deleted whose file in the cache is corrupted",
        both(rotten("build/tiny/model/model.skops"), without("build/tiny/model")),
        "train",
        ("train",),
        "and comes out equal",
    ),
    Case(
        "a table of rows deleted whose file in the cache is corrupted",
        both(rotten("build/tiny/rows/2013-02.parquet"), without("build/tiny/rows")),
        "prepare",
        ("prepare",),
        "and comes out equal",
    ),
    Case(
        "an output deleted whose entry in the cache is deleted too",
        both(uncached("build/tiny/split.json"), without("build/tiny/split.json")),
        "prepare",
        ("prepare",),
        "and comes out equal",
    ),
    Case("build/ and the cache lost", without("build", ".dvc/cache"), "environment", STAGES),
    Case("an edit undone", undone, None, gives_back=True),
    Case("another checkout with the same cache trains something else", a_neighbour_edits, None),
    Case("a second checkout with another user's cache and run-cache", in_a_second_checkout, None, gives_back=True),
    Case("the same, without dvc.lock", both(in_a_second_checkout, without("dvc.lock")), None, gives_back=True),
]

CASES = [*OF_SOURCES, *OF_WHAT_WAS_MADE]
