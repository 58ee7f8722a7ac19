"""Style and script of the page, and what a browser may do with it: nothing that is not in it."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from pathlib import Path

from tasks.ground import settings

HERE = Path(__file__).parent / "templates"
PICTURES = settings.OWN / "tasks" / "pictures"

STYLE = "".join(
    path.read_text(encoding="utf-8") for path in (PICTURES / "themes.css", PICTURES / "charts.css", HERE / "page.css")
)
SCRIPT = (HERE / "page.js").read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


IN_PAGE = "; ".join(
    (
        "default-src 'none'",
        f"style-src {_hash(STYLE)}",
        f"script-src {_hash(SCRIPT)}",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    )
)
"""The content security policy in the page, so that it holds for the file too."""

POLICY = f"{IN_PAGE}; frame-ancestors 'none'"
"""The content security policy that the page is served with: this style, this script, itself, and nothing else."""

REPORTS = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; font-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""For the pages below var/reports, which other tools make: what is in them, and nothing from elsewhere."""
