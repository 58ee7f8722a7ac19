"""Report of a validation: what each expectation found in one partition; as JSON, as Markdown, or in a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ExpectationResult:
    """One expectation, checked on one partition."""

    name: str
    column: str | None
    expected: str
    passed: bool
    not_checked: bool = False
    observed: str | None = None
    unexpected_count: int | None = None
    unexpected_percent: float | None = None
    examples: tuple[str, ...] = ()
    reason: str | None = None

    @property
    def failed(self) -> bool:
        """Whether it is a reason to refuse the partition."""
        return not self.passed and not self.not_checked

    def sentence(self) -> str:
        """What was expected, how many rows are not so, examples."""
        parts = []
        if self.unexpected_count:
            parts.append(f"{self.unexpected_count:,} rows ({self.unexpected_percent:g} %) are not")
        if self.reason or self.observed:
            parts.append(self.reason or f"found {self.observed}")
        if self.examples:
            parts.append("such as " + "; ".join(self.examples[:3]))
        where = f" of {self.column}" if self.column else ""
        return "; ".join([f"{self.name}{where}: expected {self.expected}", *parts])

    def table_row(self) -> str:
        """The same as a row of a Markdown table."""
        rows = f"{self.unexpected_count:,} ({self.unexpected_percent:g} %)" if self.unexpected_count else ""
        observed = self.reason or self.observed or ""
        cells = [f"`{self.name}`", self.column or "", self.expected, observed, rows, "; ".join(self.examples)]
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


@dataclass(frozen=True)
class Report:
    """What one model's contract says of one partition; `asdict` and `from_dict` make JSON of it, and back."""

    dataset: str
    partition: str
    model: str
    passed: bool
    checks: tuple[ExpectationResult, ...]
    rows: int | None = None

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Report:  # noqa: D102
        checks = tuple(ExpectationResult(**{**check, "examples": tuple(check["examples"])}) for check in raw["checks"])
        return cls(**{**raw, "checks": checks})

    @property
    def failures(self) -> list[ExpectationResult]:
        """The checks that failed."""
        return [check for check in self.checks if check.failed]

    @property
    def left_out(self) -> list[ExpectationResult]:
        """Those that could not be asked of this partition."""
        return [check for check in self.checks if check.not_checked]

    def markdown(self) -> Iterator[str]:
        """Lines: failed expectations, how many rows, examples of them; what was not checked, and why."""
        size = f"{self.rows:,} rows" if self.rows is not None else "not read"
        verdict = "passed" if self.passed else "refused"
        yield f"## {self.dataset} {self.partition}, by the contract of {self.model}: {verdict}"
        yield ""
        failed, left_out = len(self.failures), len(self.left_out)
        yield f"{size}. Checks: {len(self.checks)}, failed: {failed}, not checked: {left_out}."
        yield f"Contract: `models/{self.model}/expectations/{self.dataset}.yaml`"
        yield ""
        if self.failures:
            yield "| expectation | column | expected | observed | rows | examples |"
            yield "| --- | --- | --- | --- | --- | --- |"
            yield from (check.table_row() for check in self.failures)
            yield ""
        if self.left_out:
            yield "Not checked: " + "; ".join(
                f"`{check.name}`{f' of {check.column}' if check.column else ''} "
                f"({(check.reason or '').removeprefix('not checked: ')})"
                for check in self.left_out
            )
            yield ""
