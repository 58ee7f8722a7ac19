"""Model file: skops, never pickle. The same model gives the same bytes, and nothing is loaded unread.

skops writes memory addresses and the time of day into its archive; `dump` puts running numbers and a fixed date in
their place, so that a hash identifies a model. What a model of LightGBM, XGBoost or CatBoost has learned stands in the
archive in its library's own format. Which types a file may hold, each library's family says (families/).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
import zlib
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

from tasks.runtime import answers, decisions, families, skops_io
from tasks.runtime.errors import ModelFileRefused

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline

# What skops and zipfile raise at bytes that are no model file, or one that was made to look like one.
UNREADABLE = (
    *(zipfile.BadZipFile, zlib.error, OSError, EOFError, ImportError),
    *(LookupError, ValueError, TypeError, AttributeError, RuntimeError),
)


MARKED = 100_000
"""Bytes at the beginning of a member, in which a library says which version of it wrote them, before its numbers."""


def dump(pipeline: Pipeline, path: Path) -> None:
    """Write a fitted pipeline to a model file; equal pipelines give equal bytes.

    The pipeline forgets what differs from process to process: how long a search took, the name of a CatBoost model.
    """
    families.settle(pipeline)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    beside.write_bytes(_canonical(skops_io.module().dumps(pipeline)))
    beside.replace(path)


def load(path: Path, sha256: str | None, own: str | None = None) -> Pipeline:
    """Load a model file, after looking at it.

    Args:
        path: the file.
        sha256: what it must hash to; None only for a file that this process has just made.
        own: a package of the team's own whose types the file may hold, as `models.flight_delay`.

    Raises:
        ModelFileRefused: the file is missing, was changed, is no model file, or holds a type that is not on the list.
    """
    content = _read(path, sha256)  # once: what is hashed and looked at is what is loaded
    try:
        asked = types(content)
        if refused := _unreviewed(asked, own):
            raise ModelFileRefused(
                f"{path} holds types that are not on the reviewed list: {', '.join(refused)}. It is not loaded. "
                f"{advice(own)}"
            )
        if newer := _newer(content, asked):
            raise ModelFileRefused(
                f"{path} was written by {newer}: an older library may read it wrong. It is not loaded. Install what "
                f"its release names (requirements.txt), or train it again with what is installed."
            )
        pipeline: Pipeline = skops_io.module().loads(content, trusted=sorted(asked))
    except ModuleNotFoundError as error:
        missing = families.not_installed(str(error.name).partition(".")[0])
        raise ModelFileRefused(f"{path} holds a model of a library that is missing here: {missing}") from None
    except families.errors() as error:
        raise ModelFileRefused(f"{path} cannot be read by {_libraries(asked)}, as installed here: {error}") from None
    except UNREADABLE as error:
        raise ModelFileRefused(f"{path} is not a model file: {type(error).__name__}: {error}") from None
    return pipeline


def _read(path: Path, sha256: str | None) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ModelFileRefused(f"{path} is not there") from None
    actual = hashlib.sha256(content).hexdigest()
    if sha256 is not None and actual != sha256:
        raise ModelFileRefused(
            f"{path} was changed after it was packaged: its SHA-256 is {actual}, recorded was {sha256}. "
            f"It is not loaded. Restore it (dvc pull, or build the release again)."
        )
    return content


def types(content: bytes) -> set[str]:
    """The dotted names of all types and functions in a model file, but for those of Python and NumPy themselves."""
    return set(skops_io.module().get_untrusted_types(data=content))


def packages(path: Path) -> set[str]:
    """The packages whose types a model file holds."""
    return {families.package_of(f"{name}.") for name in modules(path)}


def modules(path: Path) -> set[str]:
    """The modules whose types a model file holds."""
    names: set[str] = set()
    _gather(json.loads(zipfile.ZipFile(path).read("schema.json")), names)
    return names - {"builtins"}


def _gather(node: Any, names: set[str]) -> None:
    if isinstance(node, dict):
        if isinstance(module := node.get("__module__"), str):
            names.add(module)
        for child in node.values():
            _gather(child, names)
    elif isinstance(node, list):
        for child in node:
            _gather(child, names)


def _newer(content: bytes, types: set[str]) -> str | None:
    """Which newer library wrote a file: what each says stands in the schema, or at the beginning of a member."""
    archive = zipfile.ZipFile(io.BytesIO(content))
    for member in archive.infolist():
        with archive.open(member) as file:
            head = file.read(-1 if member.filename == "schema.json" else MARKED)
        if newer := families.newer(types, head):
            return newer
    return None


def advice(own: str | None) -> str:
    """What to do about a type that nobody has read."""
    place = f"{own.replace('.', '/')}/pipeline/__init__.py" if own else "models/<name>/pipeline/__init__.py"
    return f"Read what they do; if they are harmless, name them in a set REVIEWED in {place}."


def _libraries(types: set[str]) -> str:
    """The libraries beside scikit-learn that a file needs, with their versions here."""
    return ", ".join(family.installed() for family in families.of_names(types)[1:])


def unreviewed_types(pipeline: Pipeline, own: str | None = None) -> list[str]:
    """The types of a fitted pipeline that `load` would refuse; `own` as there.

    Raises:
        UNREADABLE: it cannot be written at all.
    """
    return _unreviewed(types(skops_io.module().dumps(pipeline)), own)


def _unreviewed(asked: set[str], own: str | None) -> list[str]:
    reviewed = frozenset[str]().union(*(family.reviewed for family in families.of_names(asked)))
    unknown = (name for name in asked - reviewed if not skops_io.is_public_estimator(name))
    rest = {name for name in unknown if not (own and _is_defined_below(own, name))}
    return sorted(rest - _reviewed_by(own) if rest and own else rest)


def _reviewed_by(own: str) -> set[str]:
    """Types that the team itself has read: REVIEWED of its pipeline, which a release takes along."""
    try:
        return {*getattr(import_module(f"{own}.pipeline"), "REVIEWED", ())}
    except ModuleNotFoundError:
        return set()


def _is_defined_below(own: str, dotted: str) -> bool:
    """Whether a dotted name is a class or a function of that package itself, and nothing that it merely imports.

    A module that says `import pandas as pd` also answers to `<module>.pd.read_pickle`, and that runs code.
    """
    module, _, name = dotted.rpartition(".")
    if module != own and not module.startswith(f"{own}."):
        return False
    try:
        defined = getattr(import_module(module), name)
    except (ImportError, AttributeError):
        return False
    return isinstance(defined, type | FunctionType) and defined.__module__ == module


def predict(
    pipeline: Pipeline, frame: pd.DataFrame, task: str, decision: decisions.Decision | None = None
) -> pd.DataFrame:
    """The pipeline's predictions, one row per row of a frame.

    Args:
        pipeline: fitted.
        frame: the feature columns, one row per request.
        task: of params.yaml.
        decision: as the release has it; None: for the most probable class.

    Returns:
        With the frame's index, the columns that tasks/runtime/answers.py names. Probabilities sum to 1; the score of an
        anomaly is the decision function with its sign changed: higher is stranger, above 0 is an alert.
    """
    return answers.of(task, pipeline, decision).table(pipeline, frame)


# ── one model, one sequence of bytes ──────────────────────────────────────────────────────────────


def _canonical(archive: bytes) -> bytes:
    """The same skops archive with running numbers for addresses, a fixed date, and its members in order."""
    source = zipfile.ZipFile(io.BytesIO(archive))
    schema = json.loads(source.read("schema.json"))
    numbers: dict[Any, int] = {}
    members: dict[str, str] = {}
    _renumber(schema, numbers, members)
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as out:
        for name, renamed in sorted(members.items(), key=lambda item: item[1]):
            _add(out, renamed, source.read(name))
        _add(out, "schema.json", json.dumps(schema, separators=(",", ":")).encode())
    return target.getvalue()


def _renumber(node: Any, numbers: dict[Any, int], members: dict[str, str]) -> None:
    """Walk the schema in order; give each object a number, and each member a name made of its number."""
    if isinstance(node, list):
        for child in node:
            _renumber(child, numbers, members)
    if not isinstance(node, dict):
        return
    if "__id__" in node:
        # a plain value may or may not be one object with an equal one elsewhere: that is the interpreter's
        # affair, so each gets a number of its own
        key = object() if node.get("__loader__") in ("JsonNode", "TypeNode") else node["__id__"]
        node["__id__"] = numbers.setdefault(key, len(numbers) + 1)
    if isinstance(node.get("file"), str):
        old = node["file"]
        node["file"] = members.setdefault(old, f"{len(members) + 1:06d}{Path(old).suffix}")
    for key, child in node.items():
        if key not in ("__id__", "file"):
            _renumber(child, numbers, members)


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    member = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    member.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(member, content)
