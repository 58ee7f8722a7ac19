"""Arithmetic that numpy and OpenBLAS use in this process: a model's bits depend on it."""

from __future__ import annotations

from tasks.ground import settings
from tasks.ground.errors import EnvironmentDiffers

PINNED = ("numpy X86_V3", "OpenBLAS Haswell")
"""What `settings.arithmetic()` comes to on every x86-64 processor with AVX2."""


def in_effect() -> str:
    """Such as "numpy X86_V3, OpenBLAS Haswell, 1 thread": the same on every processor that the pins are meant for."""
    threads = settings.arithmetic()["OMP_NUM_THREADS"]
    return ", ".join([*_libraries(), f"{threads} thread{'' if threads == '1' else 's'}"])


def refuse_other() -> None:
    """Check that the pins took effect: they do not where numpy was imported before they were set.

    Raises:
        EnvironmentDiffers: names the arithmetic in effect, and the pinned one.
    """
    libraries = _libraries()
    if settings.has_avx2() and libraries != PINNED:
        raise EnvironmentDiffers(
            f"this process computes with {', '.join(libraries)}, and a model is made with {', '.join(PINNED)}, so that "
            f"it is the same on every machine. numpy was imported before tasks.ground.settings.apply() was called: "
            f"call it first, or use `python -m tasks` (docs/decisions/arithmetic.md)"
        )


def _libraries() -> tuple[str, ...]:
    import numpy as np
    from threadpoolctl import threadpool_info

    simd = np.show_config(mode="dicts")["SIMD Extensions"]
    level = [*simd["baseline"], *simd.get("found", [])][-1]  # a list that is empty is left out
    kernels = {info["architecture"] for info in threadpool_info() if info["internal_api"] == "openblas"}
    return (f"numpy {level}", *(f"OpenBLAS {kernel}" for kernel in sorted(kernels)))
