"""Family: what is known of one library's estimators; as it stands here, of one that asks for nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the stages ask a family what it is called, and need no numpy for that
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Scorer = Callable[..., Floats]  # rows → answers


class Family:
    """One library's estimators: override what is otherwise with it."""

    title = ""
    """As its users write it."""
    package = ""
    """What is imported."""
    group = ""
    """The optional group of the lock that brings it: `make setup WITH=<group>`."""
    distributions: tuple[str, ...] = ()
    """Names under which it can be installed, the one of the group first."""
    reviewed: frozenset[str] = frozenset()
    """Types and functions that a model file may hold, as dotted names. Each was read: a plain container of numbers or a
    function without side effects; none runs code that the file brings along, opens a file or a socket."""
    most_probable: frozenset[str] = frozenset()
    """Names of classifiers whose `predict` is the most probable class: read in their code."""
    debian: tuple[str, ...] = ()
    """Debian packages that it links to, and that a slim image of Python does not have."""
    tolerance = 1e-9
    """How far an answer may be off that is computed again (in another batch, another process), relative to values above
    1. A library that computes in single precision names more."""

    def installed(self) -> str:
        """Its name and the version that is installed here."""
        from importlib.metadata import PackageNotFoundError, version

        for name in self.distributions:
            try:
                return f"{self.title} {version(name)}"
            except PackageNotFoundError:
                continue
        return self.title

    def answers_with(self, module: str) -> str | None:
        """The package that must be installed where a type of a module answers; None: no package has to."""
        return module.partition(".")[0]

    def written_by(self, member: bytes) -> tuple[int, ...] | None:  # noqa: ARG002
        """The version that wrote a member of a model file; None: it does not say, or the library itself refuses it."""
        return None

    def readable(self) -> tuple[int, ...]:
        """The newest version that is read here: of what is installed, without its patches."""
        from importlib import import_module

        return tuple(map(int, import_module(self.package).__version__.split(".")[:2]))

    def errors(self) -> tuple[type[Exception], ...]:
        """What the library raises at rows and parameters that it cannot take, beside Python's own."""
        return ()

    def problem(self, estimator: Any) -> str | None:  # noqa: ARG002
        """Why an unfitted estimator cannot be fitted here, and what to do; None where it can."""
        return None

    def prepare(self, estimator: Any) -> None:
        """Give an unfitted estimator the parameters that make the same bytes everywhere, where nobody chose others."""

    def settle(self, fitted: Any) -> None:
        """Take out of a fitted estimator what differs from process to process, such as the time of day."""

    def fast_method(self, fitted: Any) -> str | None:  # noqa: ARG002
        """The method of a fitted estimator that `fast` may answer for; None where it knows no shorter way."""
        return None

    def fast(self, fitted: Any) -> Scorer:
        """What answers for it: takes a matrix (float64, few rows). Tried beside it when a release is loaded."""
        raise NotImplementedError


def choose(estimator: Any, name: str, value: Any, *synonyms: str) -> None:
    """Set a parameter of an unfitted estimator, where it is not chosen yet by any of its names."""
    chosen = estimator.get_params(deep=False)
    if all(chosen.get(each) is None for each in (name, *synonyms)):
        estimator.set_params(**{name: value})


def has_gpu() -> bool:
    """Whether this machine has a graphics processor that computes."""
    from pathlib import Path

    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/kfd").exists()


def gpu_problem(parameter: str, value: Any, instead: str) -> str | None:
    """Why a parameter that asks for a graphics processor cannot be met."""
    if has_gpu():
        return None
    return f"{parameter}: {value!r} asks for a graphics processor, and this machine has none: {instead}"
