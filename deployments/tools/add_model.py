"""Added model: from files of a table to a model's folder, its entry in params.yaml, partitions, and a first verdict.

Everything is read and drafted beside the project, in var/drafts/<name>. Only what is whole is put in its place: the
folder, the entry, the partitions into the landing zone. What fails before leaves the tree as it was; what is killed
while it puts things in place is taken back by the next call.
"""

from __future__ import annotations

import importlib.util
import json
import keyword
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from deployments.tools import quickstart
from tasks.data import zones
from tasks.drafting import cutting, figures, plan, source, survey, times, writing
from tasks.drafting import wish as asked
from tasks.drafting.plan import ModelPlan
from tasks.drafting.wish import Wish
from tasks.ground import files, params, paths, settings
from tasks.ground.errors import Mistake, ModelCodeError, ParamsError
from tasks.ground.git import Clone
from tasks.tables import partitions, selection

MARKER = ".unfinished"
"""In models/<name> while things are put in place: params.yaml as it was before, and as it becomes."""


def run(wish: Wish, given: Sequence[Path], *, train: bool, ask: bool) -> int:
    """Add a model and bring it to its first verdict; gives the exit code.

    Args:
        wish: what was asked for.
        given: files of the table, or folders of such.
        train: whether the loop runs.
        ask: whether a person is asked before anything is written.

    Raises:
        Mistake: the name is taken, or the table cannot be learned from; nothing is written.
    """
    _take_back_unfinished(wish.name)
    _refuse_name(wish.name)
    draft = _draft(wish, given)
    _tell(draft)
    if ask and input("\nWrite this? [Y/n] ").strip().lower() not in {"", "y", "yes"}:
        print("nothing was written")
        return 1
    _put_in_place(draft, ", ".join(path.name for path in draft.survey.source.paths[:3]))
    _commit([f"models/{wish.name}", "params.yaml", "tests/models"], f"Add the model {wish.name}")
    if not train:
        print(f"\nnext: `evergreen run` trains it; what it learns from: models/{wish.name} and params.yaml")
        return 0
    if code := quickstart.loop_beside_a_server(wish.name):
        print(f"\nmodels/{wish.name} and its entry are written. Mend what is said above, then `evergreen run`")
        return code
    _commit(["data.dvc", "dvc.lock"], f"The first data version and results of {wish.name}")
    for line in _conclusion(draft):
        print(line)
    return 0


def cost_of(text: str | None) -> tuple[float, float] | None:
    """What `FP=1,FN=20` says: what a false positive costs, and what a false negative does.

    Raises:
        Mistake: it says something else.
    """
    if text is None:
        return None
    pairs = [part.partition("=") for part in text.upper().split(",")]
    costs = {name.strip(): float(value) for name, _, value in pairs if re.fullmatch(r"\d+(\.\d+)?", value)}
    if sorted(costs) != ["FN", "FP"] or len(pairs) != 2 or not all(costs.values()):
        raise Mistake(f"--cost {text}: say what a false positive and a false negative cost, as FP=1,FN=20")
    return costs["FP"], costs["FN"]


# ── before anything is read ───────────────────────────────────────────────────────────────────────


def _refuse_name(name: str) -> None:
    from pydantic import TypeAdapter, ValidationError

    try:
        TypeAdapter(params.ModelName).validate_python(name)
    except ValidationError as error:
        problem = error.errors()[0]["msg"].removeprefix("Value error, ")
        usual = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
        hint = f"; {usual!r} would do" if usual and usual[0].isalpha() and usual != name else ""
        words = "a name has small letters, digits and _, and begins with a letter" if "pattern" in problem else problem
        raise Mistake(f"a model cannot be called {name!r}: {words}{hint}") from None
    if keyword.iskeyword(name):
        raise Mistake(f"a model cannot be called {name!r}: it is a word of Python")
    loaded = params.load()
    if name in loaded.models:
        raise Mistake(
            f"there is a model {name!r} already: give another name, or remove models/{name} and its entry first"
        )
    if name in loaded.datasets:
        raise Mistake(f"{', '.join(loaded.readers(name))} reads a dataset {name!r} already: give another name")
    for path in (settings.ROOT / "models" / name, settings.ROOT / "models" / f"{name}.py"):
        if path.exists() and any(each.name != "__pycache__" for each in (path.iterdir() if path.is_dir() else [path])):
            raise Mistake(
                f"models/{path.name} is there already, without an entry in params.yaml: move it away, or name another"
            )


# ── the draft ─────────────────────────────────────────────────────────────────────────────────────


def _draft(wish: Wish, given: Sequence[Path]) -> ModelPlan:
    """Read the table twice: what it is, and its partitions; and try the rows on a sample before anything is kept."""
    folder = paths.drafts(wish.name)
    files.remove(folder)
    quickstart.title("Reading the table")
    looked = source.look(given)
    asked.check_columns(wish, looked)
    seen = survey.survey(looked, _Progress("read"))
    draft = plan.make(wish, seen)
    progress = _Progress("cut into partitions")
    needed = None if draft.task == "anomaly" else wish.label
    done = cutting.cut(seen, draft.by, draft.form, draft.key, needed, folder / "partitions", progress)
    _settle_key(draft, done.repeated_keys())
    plan.split(draft, done)
    for path, text in writing.files(draft).items():
        files.write_text(folder / "model" / path, text)
    files.write_text(folder / "test.py", writing.test(draft))
    _format(folder)
    _try_rows(draft, folder)
    return draft


def _settle_key(draft: ModelPlan, repeated: int) -> None:
    if repeated and draft.outlook:
        raise Mistake(
            f"{repeated:,} rows are of a time that another row of {' and '.join(draft.outlook.series) or 'the series'} "
            f"has too: `--series COLUMN` names what tells series apart; or sum up what is of one time"
        )
    if repeated and draft.wish.key:
        names = ", ".join(draft.wish.key)
        raise Mistake(
            f"--id {names} stands more than once in {repeated:,} rows: it does not name a row. Add a column to it "
            f"(`--id {draft.wish.key[0]} --id …`), leave it out, or have the table without duplicates"
        )
    if repeated:
        draft.key = []
    elif draft.key and not draft.wish.key and not draft.outlook:
        draft.notes.append(f"{draft.key[0]} names the rows: it is the key of the expectation suite")


def _format(folder: Path) -> None:
    """As the linters of the project ask for it; where ruff is not installed, as it is."""
    with suppress(FileNotFoundError):
        ruff = [str(Path(sys.executable).parent / "ruff"), "format", "--quiet", "--line-length", "120", str(folder)]
        subprocess.run(ruff, check=False, cwd=settings.ROOT)


def _try_rows(draft: ModelPlan, folder: Path) -> None:
    """Make rows of a sample by the drafted code, and hold them against the drafted entry."""
    import pandas as pd

    from tasks.training.conformance import conform

    model = _model(draft)
    sample = draft.survey.sample.drop(columns="__file__")
    needed = [] if draft.task == "anomaly" else list(draft.wish.labels)
    sample = sample.dropna(subset=needed).head(5000)  # the newest rows may have no label yet
    types = {name: column.type for name, column in draft.survey.columns.items()}
    table = sample.astype(types, errors="ignore").copy()  # in one piece: of many columns it would be in many
    try:
        rows = _load(folder / "model" / "rows" / "__init__.py").rows
        tells = {} if draft.key and not draft.outlook else {"partition": partitions.wanted("sample")}
        if draft.outlook:
            table = pd.concat({"sample": table}, names=selection.LEVELS)
        made = rows({draft.dataset: table}, **tells)
        conform(made, draft.wish.name, model)
    except ModelCodeError as error:
        raise Mistake(f"{error}. Have the table mended, or leave the column out of it") from None


def _model(draft: ModelPlan) -> params.Model:
    """The drafted entry, as params.yaml would be read with it."""
    with_entry = _with_entry(
        (settings.ROOT / "params.yaml").read_text(encoding="utf-8"), writing.entry(draft, "a file")
    )
    path = paths.drafts(draft.wish.name) / "params.yaml"
    files.write_text(path, with_entry)
    return params.load(path).model(draft.wish.name)


def _load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("drafted_rows", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _Progress:
    """Tells every two seconds how far reading is."""

    def __init__(self, what: str) -> None:
        self.what, self.next, self.begin = what, time.monotonic() + 2, time.monotonic()

    def __call__(self, share: float, rows: int) -> None:
        now = time.monotonic()
        if now >= self.next or (share == 1 and now - self.begin > 2):
            left = (now - self.begin) * (1 - share) / max(share, 0.001)
            print(f"  {share:4.0%} {self.what}: {rows:,} rows, {left:.0f} s to go", flush=True)
            self.next = now + 2


# ── what a person is told ─────────────────────────────────────────────────────────────────────────


def _tell(draft: ModelPlan) -> None:
    rows, columns = draft.survey.rows, len(draft.survey.columns)
    parts = draft.rows
    named = f"{next(iter(parts))} to {list(parts)[-1]}" if len(parts) > 1 else next(iter(parts), "")
    _line(f"{rows:,} rows, {columns} columns; {len(parts)} partition{'s'[: len(parts) > 1]} by {draft.by} ({named})")
    count = len(_model(draft).features)
    of = "" if draft.task == "anomaly" else f" of {draft.label_words}"
    _line(f"{draft.task}{of} by {count} feature{'s'[: count != 1]}")
    leaks = [s for s in draft.left_out if s.is_leak]
    for title, several in (
        ("Smells of a leak, and is left out (take it back in params.yaml if it is known before)", leaks),
        ("Left out", [s for s in draft.left_out if not s.is_leak]),
        ("Look at these: a decision may have to be fair in them", draft.personal),
    ):
        if several:
            quickstart.title(title)
            for suspicion in several[:20]:
                _line(f"{suspicion.column}: {suspicion.why}")
            if len(several) > 20:
                _line(f"and {len(several) - 20} more: they stand in params.yaml")
    if draft.notes:
        quickstart.title("To know")
        for note in draft.notes:
            _line(note)


def _conclusion(draft: ModelPlan) -> Iterator[str]:
    """The verdict, and what its figures mean; what to edit, and what to type next."""
    from tasks.release.gate import verdicts

    name = draft.wish.name
    verdict = (verdicts.newest(name) or [{}])[-1]
    measured = files.read_json(settings.BUILD / name / "evaluation" / "metrics.json")
    quickstart.title(f"{name}: {'promoted' if verdict.get('promoted') else 'not promoted'}")
    for sentence in figures.in_words(draft.task, measured):
        yield f"  {sentence}"
    classes = files.read_json(settings.BUILD / name / "model" / "training.json").get("classes") or []
    if len(classes) == 2 and not draft.wish.further:
        yield f"  Of its two classes {classes[1]} is the second, sorted: probability, precision and recall are of it."
    for check in verdict.get("checks", []):
        if not check["passed"]:
            yield f"  ✗ {check['name']}: {check['reason']}"
    if verdict.get("held"):
        yield f"  it waits for a person: {verdict['held']}"
    if refused := _refused(draft.dataset):
        yield f"  {refused} of its files wait in quarantine and were not learned from: `evergreen quarantine list`"
    yield f"""
  Edit: models/{name}/rows (what a row is), params.yaml (features, gate), models/{name}/expectations (what is refused);
  then `evergreen train {name}`. `evergreen why {name}` says what would run."""
    if verdict.get("promoted"):
        yield "  Next: `evergreen up --detach`, then ask it:"
        body = f'{{"rows": [{_example_row(name)}]}}'
        yield f"    curl 127.0.0.1:3000/{name}/predict -d '{body}'"
    else:
        edit = f"`evergreen try evaluate {name} --from prepare` tries an edit"
        yield f"  Nothing is served: no candidate has passed the gate. {edit}."
    suffix = "parquet" if draft.survey.source.is_typed else "csv"
    yield f"  More data: put files into {params.load().landing}/{draft.dataset}/, as {_next_name(draft)}.{suffix}"


def _next_name(draft: ModelPlan) -> str:
    """How the partition after the last one is called."""
    newest = list(draft.rows)[-1]
    if draft.by == "rows":
        return f"part-{len(draft.rows) + 1:03d}"
    if draft.by == "decade":
        return f"{int(newest) + 10}"
    end = partitions.wanted(newest).end
    return "NAME" if draft.by == "file" or end is None else times.name_of(end, draft.by)


def _refused(dataset: str) -> int:
    from tasks.data import quarantine

    entries = quarantine.waiting(params.load().quarantine)
    return sum(entry.id.startswith(f"{dataset}/") for entry in entries)


def _example_row(name: str) -> str:
    features = params.load().model(name).features
    row = json.dumps({name: _example(feature) for name, feature in features.items()}, ensure_ascii=False)
    return row.replace("'", "'\\''")  # as a shell takes it between quotes


def _example(feature: params.Feature) -> Any:
    """As a request holds it."""
    if feature.type == "vector" and feature.length and isinstance(feature.example, float):
        return [feature.example] * feature.length
    return int(feature.example) if feature.type == "integer" and feature.example is not None else feature.example  # type: ignore[arg-type]  # a number


def _line(text: str) -> None:
    print(f"  {text}", flush=True)


# ── putting things in place ───────────────────────────────────────────────────────────────────────


def _test_of(name: str) -> str:
    return f"tests/models/test_{name}.py"


def _put_in_place(draft: ModelPlan, of: str) -> None:
    """The folder, the entry, the test, and then the partitions: by now a running platform knows what they are."""
    name, folder = draft.wish.name, paths.drafts(draft.wish.name)
    home, written = settings.ROOT / "models" / name, settings.ROOT / "params.yaml"
    before = written.read_text(encoding="utf-8")
    after = _with_entry(before, writing.entry(draft, of))
    with settings.for_others(home):
        files.write_text(folder / "model" / MARKER, json.dumps([before, after]))
        files.remove(home)
        (folder / "model").rename(home)
        try:
            files.write_text(settings.ROOT / _test_of(name), (folder / "test.py").read_text(encoding="utf-8"))
            files.write_text(written, after)
            params.load()
            landing = zones.landing(params.load().landing)
            for path in sorted((folder / "partitions").iterdir()):
                (landing / draft.dataset / path.name).write(partial(shutil.copyfile, path), folder)  # it may be large
        except BaseException:
            _take_back_unfinished(name)
            raise
        (settings.ROOT / "tests" / "models" / "__init__.py").touch()
        (home / MARKER).unlink()
    files.remove(folder)


def _take_back_unfinished(name: str) -> None:
    """Remove what a call that was killed has put in place, unless params.yaml was edited since."""
    marker = settings.ROOT / "models" / name / MARKER
    if not re.fullmatch(r"\w+", name) or not marker.exists():
        return
    before, after = json.loads(marker.read_text(encoding="utf-8"))
    written = settings.ROOT / "params.yaml"
    if (now := written.read_text(encoding="utf-8")) == after:
        files.write_text(written, before)
    elif now != before and name in params.load().models:
        raise Mistake(
            f"a call of add-model that was killed has left models/{name} and its entry in params.yaml, which was "
            f"changed since: remove the entry, or finish the model by hand and remove models/{name}/{MARKER}"
        )
    files.remove(settings.ROOT / _test_of(name))
    files.remove(marker.parent)


def _with_entry(text: str, entry: str) -> str:
    """params.yaml with one more model, below the others; nothing else of the file changes."""
    if re.search(r"^models: *\{\}.*$", text, re.MULTILINE):
        return re.sub(r"^models: *\{\}.*$", lambda _: f"models:\n{entry.rstrip()}", text, flags=re.MULTILINE)
    begin = re.search(r"^models:.*$", text, re.MULTILINE)
    if begin is None:
        raise ParamsError("params.yaml has no `models:`: add the line `models: {}`")
    following = re.search(r"^[A-Za-z_]", text[begin.end() :], re.MULTILINE)
    end = begin.end() + following.start() if following else len(text)
    return f"{text[:end].rstrip()}\n\n{entry}{chr(10) if following else ''}{text[end:]}"


def _commit(names: list[str], message: str) -> None:
    """Commit what was written: a candidate made of what is in no commit waits for a person."""
    clone = Clone(settings.ROOT)
    written = [each for each in names if (settings.ROOT / each).exists()]
    if not clone.is_checkout() or not written or not clone.changed(*written):
        return
    clone.commit(message, *written)
    _line(f"committed {', '.join(written)}: {message}")
