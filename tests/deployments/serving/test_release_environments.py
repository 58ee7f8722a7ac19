"""Releases that pin other packages than are installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.serving import release_environments
from tasks.ground import settings
from tasks.ground.errors import EnvironmentDiffers


def test_a_release_of_other_packages_says_how_it_gets_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a command; once that has made an environment, it runs in it."""
    monkeypatch.setattr(settings, "VAR", tmp_path)
    release = tmp_path / "bentos" / "tiny" / "cafe" / "src"
    release.mkdir(parents=True)
    (release / "requirements.txt").write_text(f"numpy==0.0.1 \\\n    --hash=sha256:{'0' * 64}\n", encoding="utf-8")
    with pytest.raises(EnvironmentDiffers, match=r"(?s)numpy.*: evergreen release-environment tiny cafe$"):
        release_environments.interpreter(release)
    python = release_environments.folder(release) / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert release_environments.interpreter(release) == python
