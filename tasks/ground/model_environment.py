"""Environment of a model: the locked packages that can change what its stages compute.

What the platform's code of a purpose imports, what the model's own code imports, and the package of its estimator pull
in a closure of packages. Their exact versions from the lock are written to build/<model>/environment/<purpose>.txt, and
the stages depend on the file of their purpose instead of on the whole lock. Above them stands what else differs from
model to model or from machine to machine: what the platform knows of the model's libraries (tasks/runtime/families),
and the arithmetic. So a bump of a package makes again what stands on it, of the models that use it, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from tasks.ground import arithmetic, files, import_closure, locked_packages, params, settings
from tasks.ground.errors import EnvironmentDiffers
from tasks.runtime import families

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
    texts = {purpose: _text(purpose, model_name, model, lock) for purpose in ROOTS}
    for purpose, content in texts.items():
        files.write_text(path(model_name, purpose), content)


def path(model_name: str, purpose: str) -> Path:
    """Where the packages of a purpose are written."""
    return settings.BUILD / model_name / "environment" / f"{purpose}.txt"


def text(purpose: str, model_name: str, model: params.Model) -> str:
    """What the stage writes for a purpose; raises as it does."""
    return _text(purpose, model_name, model, locked_packages.lock())


def _text(purpose: str, model_name: str, model: params.Model, lock: Lock) -> str:
    used = [*_used(purpose, model_name, model)] if purpose in OWN else []
    roots = [*ROOTS[purpose], *sorted({name for each in used for name in _distributions(each, lock)})]
    locked_packages.refuse_difference(locked_packages.closure(roots), lock)
    head = [f"# {arithmetic.in_effect()}"] if purpose in COMPUTES else []
    head += [] if purpose == "preparation" else [f"# {file} {_hash(file)}" for file in _known_of(used)]
    pins = {str(pin) for name in locked_packages.closure(roots, everywhere=True) for pin in lock.get(name, [])}
    return "".join(f"{line}\n" for line in [*head, *sorted(pins)])


def _hash(file: str) -> str:
    return files.sha256(settings.ROOT / file)[:16]


def _known_of(used: Iterable[import_closure.ForeignImport]) -> list[str]:
    """The files of the platform that say what is known of the libraries that are used, scikit-learn apart."""
    return families.modules({each.package for each in used} - {families.SKLEARN.package})[1:]


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
