"""The router's answers to a browser: the status page, and the pages below var/reports. Other clients get JSON."""

from __future__ import annotations

from html import escape
from pathlib import Path

from deployments.status_page.assets import POLICY, REPORTS
from tasks.ground import paths

Headers = tuple[tuple[bytes, bytes], ...]
Page = tuple[int, bytes, Headers]  # status, HTML, headers

NOT_WRITTEN = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Evergreen: no status page yet</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,"></head>
<body><h1>There is no status page yet</h1><p>evergreen up writes it within seconds, and keeps it new; evergreen page
writes it once.</p></body></html>"""

NO_REPORT = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Evergreen: no such report</title>
<link rel="icon" href="data:,"></head><body><h1>There is no report {name}</h1><p>evergreen reports draws the reports of
the data, and the Data Docs.</p><p><a href="/status/">The status page</a></p></body></html>"""


def status(path: str) -> Page:
    """The status page, at /status/, so that its relative links hold; and beside it a page for each model."""
    if path in ("/", "/status"):
        return 307, b"", ((b"location", b"/status/"), *_headers(POLICY))
    name = path.removeprefix("/status/") or "index.html"
    page = paths.status_page().parent / Path(name).name
    try:
        return 200, (page if page.suffix == ".html" else paths.status_page()).read_bytes(), _headers(POLICY)
    except (OSError, ValueError):
        return 404, NOT_WRITTEN.encode(), _headers(POLICY)


def report(path: str) -> Page:
    """A page below var/reports, of which `path` begins with /reports/."""
    folder, name = paths.reports(), path.removeprefix("/reports/")
    try:
        page = (folder / name).resolve()
        if page.suffix == ".html" and page.is_relative_to(folder.resolve()):
            return 200, page.read_bytes(), _headers(REPORTS)
    except (OSError, ValueError):  # is not there, or cannot be a name
        pass
    return 404, NO_REPORT.format(name=escape(Path(name).name)).encode(errors="replace"), _headers(REPORTS)


def _headers(policy: str) -> Headers:
    return (
        (b"cache-control", b"no-store"),
        (b"content-security-policy", policy.encode()),
        (b"referrer-policy", b"no-referrer"),
        (b"x-content-type-options", b"nosniff"),
        (b"vary", b"accept"),
    )
