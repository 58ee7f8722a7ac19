"""Every family through every stage: docs/reference/families.md says what came of it."""

from __future__ import annotations

import os

import pytest

from tests.conftest import Project
from tests.repository import family_proof
from tests.repository.family_proof import CASES, PAGE, FamilyCase

QUICK, SLOW = "LightGBM", pytest.mark.slow
"""In CI this family alone, without the dear columns."""

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]


@pytest.mark.parametrize(
    "case",
    [pytest.param(each, id=each.title, marks=SLOW if each.title == QUICK else pytest.mark.long) for each in CASES],
)
def test_a_family_keeps_what_the_page_promises(case: FamilyCase, small: Project) -> None:
    """Trained twice and on two threads, evaluated, packaged, judged, rolled out, asked, explained, watched, harmed."""
    pytest.importorskip(case.class_.partition(".")[0])
    folder = os.environ.get("EVERGREEN_WRITE_FAMILIES")
    cells = family_proof.proved(case, small, dear=case.title != QUICK or folder is not None)
    if folder:
        family_proof.write(case, cells, folder)
        return
    assert family_proof.written(case).items() >= cells.items()


def test_the_page_has_a_line_of_every_case() -> None:
    """And what stands above the table is that of the code."""
    content = PAGE.read_text(encoding="utf-8")
    lines = content.splitlines()[-len(CASES) :]
    assert [line.split(" | ")[0] for line in lines] == [f"| {case.title}" for case in CASES]
    assert content == family_proof.page(lines)
