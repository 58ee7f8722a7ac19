"""Releases to swap: good ones, and bad ones of each kind. Tracked and registered as `train` leaves them.

    python -m benchmarks.releases MODEL GOOD OUT [KIND …]

in a project with build/MODEL; OUT is the file that says, as JSON, what was made.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tasks.ground import files, settings
from tasks.runtime import model_file

BEGIN = "    from tasks.runtime import predictor\n"
BATCH = "    for batch in _batches(router):\n"
SCORED = "        answers = _by_number("
REQUEST = "        requests = [self._parse("

FINE = 5
"""Requests of production that a release answers well before it begins to fail."""

Change = Callable[[Path], object]


@dataclass(frozen=True)
class Made:
    """A release in the registry."""

    candidate: str
    version: int
    kind: str
    """`good`, or what is wrong with it."""


def patched(file: str, old: str, new: str) -> Change:
    """Other code in a release's file."""

    def change(release: Path) -> None:
        text = (release / file).read_text(encoding="utf-8")
        if old not in text:
            raise LookupError(f"{release / file} holds no {old!r}: benchmarks/releases.py is to follow the code")
        (release / file).write_text(text.replace(old, new, 1), encoding="utf-8")

    return change


def wrong(release: Path) -> None:
    """It does not answer as it was evaluated: as if training and serving did not compute the same."""
    golden = files.read_json(release / "golden.json")
    for row in golden:
        row["predicted"] = {name: value * 0.9 for name, value in row["predicted"].items()}
    files.write_json(release / "golden.json", golden)


BAD: dict[str, tuple[Change, ...]] = {
    "does not start": (patched("tasks/runtime/replica.py", BEGIN, "    import no_such_library\n"),),
    "answers otherwise than evaluated": (wrong,),
    "is slow": (patched("tasks/runtime/replica.py", SCORED, f"        time.sleep(0.2)\n{SCORED}"),),
    "fails under canary": (
        patched(
            "tasks/runtime/replica.py",
            BATCH,
            f"    asked = 0\n{BATCH}        asked += sum(frame.kind == PREDICT for frame in batch)\n"
            f"        if asked > {FINE}:\n            os.abort()\n",
        ),
        patched(
            "tasks/runtime/predictor.py",
            REQUEST,
            f"        if counted and sum(self.counts) > {FINE}:\n"
            f'            return [Answer(500, b\'{{"error": "broken"}}\') for _ in bodies]\n{REQUEST}',
        ),
    ),
}
"""What is wrong with it → the ways to make it so."""


def make(model: str, good: int, bad: Sequence[str]) -> Iterator[Made]:
    """So many good releases, by turns of the model and of one with another seed; and bad ones of these kinds."""
    from tasks import steps
    from tasks.ground import params

    build = settings.BUILD / model
    bases = [shutil.copytree(build / "release", settings.VAR / "bases" / "0")]
    if good > 1:
        text = (settings.ROOT / "params.yaml").read_text(encoding="utf-8")
        seed = params.load().model(model).estimator.seed
        (settings.ROOT / "params.yaml").write_text(text.replace(f"seed: {seed}", f"seed: {seed + 1}"), encoding="utf-8")
        for step in ("train", "evaluate", "package"):
            steps.run(step, [model])
        bases.append(shutil.copytree(build / "release", settings.VAR / "bases" / "1"))
    for number in range(good):
        yield _registered(model, bases[number % len(bases)], number, "good", lambda _: None)
    done: Counter[str] = Counter()
    for number, kind in enumerate(bad):
        change = BAD[kind][done[kind] % len(BAD[kind])]
        done[kind] += 1
        yield _registered(model, bases[0], good + number, kind, change)


def _registered(model: str, base: Path, number: int, kind: str, change: Change) -> Made:
    """The base with a change and another text about it: so each is another candidate."""
    from tasks.release.package import package
    from tasks.release.registry import registry, tracking

    release = settings.BUILD / model / "release"
    files.remove(release)
    shutil.copytree(base, release, ignore=shutil.ignore_patterns("__pycache__"))
    facts: dict[str, Any] = files.read_json(release / "release.json")
    files.write_json(release / "release.json", {**facts, "about": f"{facts['about']} ({kind}, {number})"})
    change(release)
    (release / "candidate.json").unlink()
    candidate = files.digest(files.tree(release))[:16]
    files.write_json(release / "candidate.json", {"candidate": candidate})
    package.ensure_bento(model)
    tracking.track(model, release, settings.BUILD / model, {"latency_ms": 1.0})
    return Made(candidate, registry.register(model, candidate).number, kind)


def predicted(folder: Path, rows: list[dict[str, Any]]) -> list[float]:
    """What a release is to answer to rows: its probability (of the second of two classes), or its value."""
    import pandas as pd

    facts = files.read_json(folder / "release.json")
    pipeline = model_file.load(folder / "model.skops", facts["model_sha256"], own=f"models.{facts['name']}")
    frame = pd.DataFrame(rows)[facts["columns"]]
    types = {name: "str" if said["type"] == "category" else "float64" for name, said in facts["features"].items()}
    values = model_file.values(pipeline, frame.astype(types), facts["task"])
    column = 1 if facts["task"] == "classification" else 0
    found: list[float] = values[:, column].tolist()
    return found


if __name__ == "__main__":
    settings.apply()
    Path(sys.argv[3]).write_text(json.dumps([asdict(one) for one in make(sys.argv[1], int(sys.argv[2]), sys.argv[4:])]))
