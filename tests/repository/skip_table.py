"""`python -m tests.repository.skip_table`: docs/reference/skips.md, from the cases that test_skip.py tries."""

from __future__ import annotations

from pathlib import Path

from tests.repository.skips import CASES, OF_SOURCES, OF_WHAT_WAS_MADE, STAGES, Case

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "skips.md"

HEAD = """\
# What is redone after which change

Written by `python -m tests.repository.skip_table` from the cases of `tests/repository/skips.py`. Each is tried with
real DVC on a small project by `tests/repository/test_skip.py`, and what is in `build/` afterwards is compared with a
run from scratch.

**{kinds} kinds of change, 0 stale results. {needless} redo what need not be redone**: a stage whose outputs come out
equal ends it. What must be redone is said as the first stage whose result can differ; those that follow are redone as
far as their inputs differ then. «Given back»: the results come from DVC's cache, and no step is called.

`evergreen why <model>` says for your own change what would run and why, before anything does.
"""

TABLE = "| what changed | must be redone | is redone | |\n| --- | --- | --- | --- |\n"


def page() -> str:
    """The whole page."""
    head = HEAD.format(kinds=len(CASES), needless=sum(needless(case) for case in CASES))
    sources, made = ("".join(map(line, cases)) for cases in (OF_SOURCES, OF_WHAT_WAS_MADE))
    return f"{head}\n## Sources\n\n{TABLE}{sources}\n## What was made, and the cache\n\n{TABLE}{made}"


def line(case: Case) -> str:
    """One row."""
    must = f"from {case.must}" if case.must else "nothing"
    said = f"needless: {case.why}" if needless(case) else case.why
    return f"| {case.kind} | {must} | {redone(case)} | {said} |\n"


def redone(case: Case) -> str:
    """The stages whose step is called."""
    if not case.redoes:
        return "nothing; given back" if case.gives_back else "nothing"
    return "everything" if case.redoes == STAGES else ", ".join(case.redoes)


def needless(case: Case) -> bool:
    """Whether a step is called that need not be."""
    first = STAGES.index(case.must) if case.must else len(STAGES)
    before = [stage for stage in case.redoes if STAGES.index(stage) < first]
    return bool(before) and not (case.must and before == ["environment"])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
