"""Exploratory reports of datasets, and Data Docs of validations: pages in var/reports that load nothing."""

from __future__ import annotations

import re
import shutil
from html import escape
from pathlib import Path
from typing import Any

from tasks.data import file_hashes, validate
from tasks.data.validation_report import Report
from tasks.ground import files, params, paths
from tasks.tables import contract, table_files

ROWS = 50_000
"""At most so many rows of a dataset go into its report, the same share of each partition."""

STYLE = """<style>
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:.5rem 0}
td,th{border:1px solid #ccc;padding:.25rem .6rem;text-align:left;vertical-align:top}
a{color:#0645ad}.passed,.text-success{color:#17752f}.refused,.text-danger{color:#b3261e;font-weight:600}
nav,.navbar,.ge-navigation-sidebar-container,#walkthrough,.modal,footer,.dropdown-menu{display:none!important}
.badge{background:#eee;border-radius:.3rem;padding:0 .35rem;margin-right:.25rem}.collapse{display:block}
@media (prefers-color-scheme:dark){
body{background:#1b1b1b;color:#ddd}a{color:#8ab4f8}.badge{background:#333}td,th{border-color:#444}}
</style>"""


def tables() -> list[Path]:
    """An exploratory report (skrub's TableReport) of each dataset that has partitions: var/reports/<dataset>.html."""
    given = params.load()
    found = {dataset: validate.partitions(dataset) for dataset in given.datasets}
    return [_table(dataset, given.readers(dataset)[0], paths) for dataset, paths in found.items() if paths]


def _table(dataset: str, reader: str, paths: list[Path]) -> Path:
    """One dataset's report, made once per content of its partitions, of the reader's contract and of this module."""
    md5 = file_hashes.md5s(paths)
    suite = [contract.digest(reader, dataset, path.stem) for path in paths]
    key = {"partitions": [md5[path] for path in paths], "contract": suite, "code": files.sha256(Path(__file__))}

    def make(beside: Path) -> None:
        import pandas as pd
        from skrub import TableReport

        suites = [contract.load(reader, dataset, path.stem) for path in paths]
        frames = [
            _sample(table_files.read(path, wanted), ROWS // len(paths))
            for path, wanted in zip(paths, suites, strict=True)
        ]
        title = f"{dataset}: {paths[0].stem} to {paths[-1].stem}, a sample of at most {ROWS:,} rows"
        report = TableReport(pd.concat(frames, ignore_index=True), title=title, verbose=0)
        beside.write_text(report.html(), encoding="utf-8")

    return _publish(files.memo("table", key, ".html", make), f"{dataset}.html")


def _sample(frame: Any, rows: int) -> Any:
    return frame if len(frame) <= rows else frame.sample(rows, random_state=0).sort_index()


def _publish(page: Path, name: str) -> Path:
    target = paths.reports() / name
    with files.replacing(target) as beside:
        shutil.copyfile(page, beside)
    return target


def data_docs() -> Path:
    """Great Expectations' page of each validated partition, and an index: var/reports/data-docs/index.html."""
    given = params.load()
    rows = []
    for model in given.models:
        for dataset in given.models[model].datasets:
            befores = validate.befores(validate.partitions(dataset))
            rows += [_document(path, dataset, model, before) for path, before in befores.items()]
    index = paths.reports() / "data-docs" / "index.html"
    files.write_text(index, _index(rows))
    return index


def _document(path: Path, dataset: str, model: str, before: Path | None) -> tuple[Report, str]:
    """The page of one check, made once per result; gives the report and the page's name."""
    report, gx = validate.check_with_details(path, dataset, model, before)
    if gx is None:
        return report, ""
    name = f"{model}/{dataset}/{path.stem}.html"

    def make(beside: Path) -> None:
        beside.write_text(_render(gx, f"{model}: {dataset} {path.stem}"), encoding="utf-8")

    key = {"gx": gx, "name": name, "code": files.sha256(Path(__file__))}
    _publish(files.memo("data-docs", key, ".html", make), f"data-docs/{name}")
    return report, name


def _render(result: dict[str, Any], title: str) -> str:
    """Great Expectations' own page, with a style of its own, and nothing that it would load from other servers."""
    from great_expectations.core.expectation_validation_result import expectationSuiteValidationResultSchema
    from great_expectations.render.renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    loaded = expectationSuiteValidationResultSchema.load({k: v for k, v in result.items() if k != "id"})
    page: str = DefaultJinjaPageView().render(ValidationResultsPageRenderer().render(loaded))
    for loads in (r"<script\b.*?</script>", r"<(link|img)\b[^>]*https?://[^>]*>", r"<title>.*?</title>"):
        page = re.sub(loads, "", page, flags=re.DOTALL)
    return page.replace("</head>", f'<meta charset="utf-8"><title>{escape(title)}</title>{STYLE}</head>', 1)


def _index(rows: list[tuple[Report, str]]) -> str:
    lines = []
    for report, name in rows:
        verdict = "passed" if report.passed else "refused"
        left_out = len(report.left_out)
        partition = f'<a href="{escape(name)}">{escape(report.partition)}</a>' if name else escape(report.partition)
        cells = (
            escape(report.model),
            escape(report.dataset),
            partition,
            f'<span class="{verdict}">{verdict}</span>',
            f"{report.rows:,}" if report.rows is not None else "not read",
            f"{len(report.checks) - left_out} checked, {len(report.failures)} failed, {left_out} not checked",
        )
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{word}</th>" for word in ("model", "dataset", "partition", "", "rows", "expectations"))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Data Docs</title>{STYLE}</head><body>'
        f"<h1>Data Docs</h1><p>Each accepted partition, held against the contract of each model that reads it.</p>"
        f"<table><tr>{head}</tr>{''.join(lines)}</table></body></html>\n"
    )
