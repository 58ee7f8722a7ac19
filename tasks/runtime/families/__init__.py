"""Families: whose estimators a model may hold, and what is known of each library.

A family is one module here, named as the package that is imported (`lightgbm.py`), with a `Family` that it calls
FAMILY. It is found by the name of a type (`lightgbm.basic.Booster`), so a new family is a new file and no edit:

1. Write `tasks/runtime/families/<package>.py` with a subclass of `Family` (family.py says what it may tell): at least
   title, package, group, distributions and the reviewed types.
2. Import the library inside functions: only models that hold its types pay for it.
3. Add the family to `tests/tasks/runtime/families/`: its model file must be the same bytes twice.

A type of a library that is no family may be listed by the team whose model holds it: REVIEWED, a set of dotted names in
`models/<name>/pipeline/__init__.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from tasks.runtime.families import sklearn
from tasks.runtime.families.family import Family

SKLEARN: Family = sklearn.FAMILY
"""Of every model: scikit-learn, what it is made of (numpy, scipy), and this project's own types."""

RELEASE = Path(__file__).resolve().parents[3]
"""The release that this file is part of; or the project, which has no release.json."""

_WITHIN_SKLEARN = ("sklearn", "numpy", "scipy", "functools", "builtins", "tasks")
_OWN = "tasks.runtime.families."


@cache
def named(package: str) -> Family | None:
    """The family of a package that can be imported; None where it is none."""
    if package in _WITHIN_SKLEARN:
        return SKLEARN
    if package == "family" or not package.isidentifier() or find_spec(f"{__name__}.{package}") is None:
        return None
    family: Family = import_module(f"{__name__}.{package}").FAMILY
    return family


def known() -> list[str]:
    """The packages that have a family."""
    return sorted(module.name for module in iter_modules(__path__) if module.name != "family")


def package_of(dotted: str) -> str:
    """The package of a dotted name; of an estimator that a family itself brings, the family's package."""
    return dotted.removeprefix(_OWN).partition(".")[0]


def of(value: Any) -> Family:
    """The family of an object: by its type, or the type that a team derived its own from."""
    for kind in type(value).__mro__:
        family = named(package_of(f"{kind.__module__}."))
        if family is not None and kind is not object:
            return family
    return SKLEARN


def of_names(names: Iterable[str]) -> list[Family]:
    """The families that types belong to, by dotted names; scikit-learn is always one of them."""
    found = {family.package: family for package in map(package_of, names) if (family := named(package)) is not None}
    return [SKLEARN, *(found[package] for package in sorted(found) if package != SKLEARN.package)]


def modules(packages: Iterable[str]) -> list[str]:
    """The files, relative to the project, that say what is known of packages: a model that uses them depends on it."""
    families = of_names(f"{package}." for package in packages)
    return ["tasks/runtime/families/" + f"{family.package}.py" for family in families]


def estimators(root: Any, visited: set[int] | None = None) -> Iterator[Any]:
    """Every estimator and fitted part that an object holds, at any depth, itself included; each one once."""
    from sklearn.base import BaseEstimator

    visited = set() if visited is None else visited
    if id(root) in visited:
        return
    visited.add(id(root))
    if isinstance(root, list | tuple | dict):
        for member in root.values() if isinstance(root, dict) else root:
            yield from estimators(member, visited)
    elif isinstance(root, BaseEstimator) or _is_of_family(root):
        yield root
        yield from estimators(getattr(root, "__dict__", {}), visited)


def _is_of_family(value: Any) -> bool:
    """Whether it may hold an estimator: of scikit-learn's own types those count, but not numpy's arrays."""
    package = package_of(f"{type(value).__module__}.")
    if package in _WITHIN_SKLEARN:
        return package == "sklearn"
    return of(value) is not SKLEARN


def prepare(pipeline: Any) -> None:
    """Make an unfitted pipeline one that gives the same bytes everywhere, where its parameters leave that open."""
    for estimator in [*estimators(pipeline)]:
        of(estimator).prepare(estimator)


def settle(pipeline: Any) -> None:
    """Take out of a fitted pipeline what differs from process to process."""
    for estimator in [*estimators(pipeline)]:
        of(estimator).settle(estimator)


def problem(pipeline: Any) -> str | None:
    """Why an unfitted pipeline cannot be fitted on this machine; None where it can."""
    problems = (of(estimator).problem(estimator) for estimator in estimators(pipeline))
    return next((each for each in problems if each), None)


def tolerance(pipeline: Any) -> float:
    """How far an answer of a pipeline may be off when it is computed again, relative to values above 1."""
    return max(of(estimator).tolerance for estimator in [pipeline, *estimators(pipeline)])


def errors() -> tuple[type[Exception], ...]:
    """What the libraries that are imported so far raise at rows and parameters that they cannot take."""
    imported = (package for package in known() if package in sys.modules)
    return tuple(error for name in imported if (family := named(name)) for error in family.errors())


def to_answer(modules: Iterable[str]) -> set[str]:
    """The packages that must be installed where types answer, by the names of their modules."""
    needs = (
        family.answers_with(module) if (family := named(package_of(module))) else package_of(module)
        for module in modules
    )
    return {package for package in needs if package}


def debian(distributions: Iterable[str]) -> list[str]:
    """The Debian packages that installed distributions need beside a slim image of Python."""
    installed = set(distributions)
    using = [family for package in known() if (family := named(package)) and installed & {*family.distributions}]
    return sorted({name for family in using for name in family.debian})


def newer(packages: Iterable[str], member: bytes) -> str | None:
    """Which of the packages wrote a member of a model file in a version that is newer than what is read here."""
    for family in of_names(packages):
        if (version := family.written_by(member)) and version > family.readable():
            return f"{family.title} {'.'.join(map(str, version))}, and {family.installed()} is installed here"
    return None


def not_installed(package: str) -> str:
    """What to do about a package that cannot be imported: in a project, or in a release that is served alone."""
    family = named(package)
    if (RELEASE / "release.json").exists():
        return (
            f"{family.title if family else package} is not installed: this environment lacks what the release names "
            f"(python -m pip install --no-deps --requirement {RELEASE / 'requirements.txt'})"
        )
    if family is None:
        return f"{package} is not installed: add it to pyproject.toml and requirements.lock (make lock, make setup)"
    return f"{family.title} is not installed: `make setup WITH={family.group}` brings it"
