"""Environment of a model: the locked packages that can change what its stages compute.

What the platform's code of a purpose imports, what the model's own code imports, and the package of its estimator pull
in a closure of packages. Their exact versions from the lock are written to build/<model>/environment/<purpose>.txt, and
the stages depend on the file of their purpose instead of on the whole lock. So a bump of a package makes again what
stands on it, of the models that use it, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from tasks.ground import arithmetic, files, import_closure, locked_packages, params, settings
from tasks.ground.errors import EnvironmentDiffers

Lock = Mapping[str, Sequence[locked_packages.Pin]]

COMPUTES = ("preparation", "training", "evaluation")
"""The purposes whose results depend on the arithmetic of this machine, which their file begins with."""

_TABLES = ("pandas", "pyarrow", "numpy", "scipy", "pydantic", "ruamel.yaml")
_LEARNING = (*_TABLES, "scikit-learn", "skops")

ROOTS = {
    "validation": ("great-expectations", "pandas", "pyarrow", "ruamel.yaml"),
    "preparation": _TABLES,
    "training": _LEARNING,
    "evaluation": (*_LEARNING, "matplotlib"),  # it draws: a bump of pillow draws again, and trains nothing
    "serving": (
        *("bentoml", "scikit-learn", "treelite", "pandas", "skops"),
        *("pydantic", "orjson", "prometheus-client", "starlette"),
    ),
}
"""What the platform's own code of each purpose imports. What these need is found by asking them."""

OWN = {"preparation": "rows", "training": "pipeline", "evaluation": "pipeline", "serving": "pipeline"}
"""Which of the model's own code each purpose runs."""


def environment(model_name: str) -> None:
    """The stage: the lock → build/<model>/environment/<purpose>.txt, for each of ROOTS.

    Raises:
        EnvironmentDiffers: an installed package is not the one that the lock names, or the model's code imports one
            that is not installed or not locked.
        ModelCodeError: the model's code is not Python.
    """
    model = params.load().model(model_name)
    lock = locked_packages.lock()
    roots = {purpose: _roots(purpose, model_name, model, lock) for purpose in ROOTS}
    locked_packages.refuse_difference({name for each in roots.values() for name in locked_packages.closure(each)}, lock)
    for purpose in ROOTS:
        files.write_text(path(model_name, purpose), _text(purpose, roots[purpose], lock))


def path(model_name: str, purpose: str) -> Path:
    """Where the packages of a purpose are written."""
    return settings.BUILD / model_name / "environment" / f"{purpose}.txt"


def text(purpose: str, model_name: str, model: params.Model) -> str:
    """What the stage writes for a purpose; raises as it does."""
    lock = locked_packages.lock()
    return _text(purpose, _roots(purpose, model_name, model, lock), lock)


def _text(purpose: str, roots: tuple[str, ...], lock: Lock) -> str:
    names = locked_packages.closure(roots, everywhere=True)
    head = [f"# {arithmetic.in_effect()}"] if purpose in COMPUTES else []
    lines = [*head, *sorted(str(pin) for name in names for pin in lock.get(name, []))]
    return "".join(f"{line}\n" for line in lines)


def _roots(purpose: str, model_name: str, model: params.Model, lock: Lock) -> tuple[str, ...]:
    """The distributions that a purpose begins with: the platform's, and those that the model's own code imports."""
    used = _used(purpose, model_name, model) if purpose in OWN else ()
    own = {name for each in used for name in _distributions(each, lock)}
    return (*ROOTS[purpose], *sorted(own - {*ROOTS[purpose]}))


# ── what the model's own code imports ─────────────────────────────────────────────────────────────


def _used(purpose: str, model_name: str, model: params.Model) -> Iterator[import_closure.ForeignImport]:
    """The packages that the model's code of a purpose imports, and the one that its estimator is of."""
    own = settings.ROOT / "models" / model_name / OWN[purpose] / "__init__.py"
    yield from _imports(own, settings.ROOT / "models")
    if purpose == "preparation":
        return
    package, *within = model.estimator.class_.split(".")
    module = settings.ROOT.joinpath(package, *within[:-1])
    if package == "models":
        yield from _imports(module / "__init__.py", settings.ROOT / "models")
        yield from _imports(module.with_suffix(".py"), settings.ROOT / "models")
    elif package == "tasks" and purpose == "training":  # what the platform's own estimators serve with stands in ROOTS
        yield from _imports(module.with_suffix(".py"), settings.ROOT)
    elif package != "tasks":
        yield import_closure.ForeignImport(package, settings.ROOT / "params.yaml", 0, is_optional=False)


def _imports(module: Path, below: Path) -> Iterator[import_closure.ForeignImport]:
    """What a module, and what it imports, import of other packages in files below a folder."""
    found = import_closure.foreign(module, settings.ROOT) if module.exists() else []
    yield from (each for each in found if each.file.is_relative_to(below))


def _distributions(used: import_closure.ForeignImport, lock: Lock) -> tuple[str, ...]:
    """The distributions of a package that is imported, as far as they are locked.

    Raises:
        EnvironmentDiffers: it is not installed, or no lock names it.
    """
    if find_spec(used.package) is None:
        if used.is_optional:
            return ()
        raise EnvironmentDiffers(f"{_where(used)} {used.package}, which is not installed: {_how_to_add(used.package)}")
    names = locked_packages.that_bring(used.package)
    locked = tuple(name for name in names if name in lock)
    if not locked:
        raise EnvironmentDiffers(
            f"{_where(used)} {used.package} ({', '.join(names) or 'of no distribution'}), which is installed but not "
            f"locked, so a release could not say what it needs: {_how_to_add((*names, used.package)[0])}"
        )
    return locked


def _where(used: import_closure.ForeignImport) -> str:
    file = used.file.relative_to(settings.ROOT)
    return f"{file}, line {used.line}, imports" if used.line else f"{file}: estimator.class is of the package"


def _how_to_add(name: str) -> str:
    if group := locked_packages.group_of(name):
        return f"`make setup WITH={group}` installs it"
    return (
        f"add {name} to a group in pyproject.toml ([dependency-groups]), then `make lock` and `make setup WITH=<group>`"
    )
