"""Every x86-64 processor with AVX2 computes the same bits."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tasks.ground import arithmetic, settings

pytestmark = pytest.mark.skipif(not settings.has_avx2(), reason="the pins are for x86-64 processors with AVX2")

APPLIED = "from tasks.ground import arithmetic, settings; settings.apply(); print(arithmetic.in_effect())"


def fresh(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A process in which numpy is not imported yet, in a shell that says something else than the pins."""
    named = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", code], env=named, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "shell",
    [
        {"NPY_DISABLE_CPU_FEATURES": ""},
        {"NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR"},
        {"OPENBLAS_CORETYPE": "Sandybridge"},
        {"OMP_NUM_THREADS": "8", "OPENBLAS_NUM_THREADS": "8"},
    ],
)
def test_a_shell_cannot_change_the_arithmetic(shell: dict[str, str]) -> None:
    """Whatever a machine exports, a model is made in one way."""
    assert fresh(APPLIED, **shell).stdout == "numpy X86_V3, OpenBLAS Haswell, 1 thread\n"


def test_the_lowest_level_has_a_name() -> None:
    """A processor without AVX2 has none of the levels that numpy chooses among."""
    lowest = fresh(
        "from tasks.ground import arithmetic; print(arithmetic.in_effect())",
        NPY_DISABLE_CPU_FEATURES="X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
    )
    assert lowest.stdout.startswith("numpy X86_V2, ")


def test_every_level_that_numpy_has_beyond_avx2_is_left_out() -> None:
    """A numpy that brings a new one is noticed here."""
    import numpy as np

    levels = np.show_config(mode="dicts")["SIMD Extensions"]
    dispatched = [*levels.get("found", []), *levels.get("not found", [])]
    beyond = dispatched[dispatched.index("X86_V3") + 1 :]
    assert settings.arithmetic()["NPY_DISABLE_CPU_FEATURES"].split() == beyond


def test_more_threads_are_a_setting_and_named() -> None:
    """Sums that are split otherwise round otherwise: the model's training.json and the stages say so."""
    assert fresh(APPLIED, EVERGREEN_THREADS="2").stdout.endswith("2 threads\n")


def test_pins_that_came_too_late_are_refused() -> None:
    """Numpy reads them once, when it is imported."""
    code = "import numpy; from tasks import steps; from tasks.ground import settings; "
    code += "settings.apply(); steps.run('train', ['tiny'])"
    late = fresh(code, OPENBLAS_CORETYPE="Sandybridge")
    assert "EnvironmentDiffers: this process computes with numpy X86_V3, OpenBLAS Sandybridge" in late.stderr


def test_another_processor_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """No identity is promised there, and none of the pins is known there."""
    monkeypatch.setattr(settings, "has_avx2", lambda: False)
    assert settings.arithmetic() == dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1") | {
        "OMP_WAIT_POLICY": "PASSIVE"
    }
    monkeypatch.setattr(arithmetic, "PINNED", ("something else",))
    arithmetic.refuse_other()
