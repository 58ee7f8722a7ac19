"""A module of PyTorch of one's own, as the how-to writes it, is an estimator of a team."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.runtime import model_file
from tests.conftest import REPOSITORY
from tests.tasks.runtime.families.fitted import TWO, WHOLE

pytestmark = pytest.mark.group("torch")

HOW_TO = REPOSITORY / "docs" / "how-to" / "choose-an-estimator.md"
WHERE = "models.toy.pipeline.gated"


@pytest.fixture
def gated(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The class that the how-to shows, as the module that it names."""
    written = re.search(r"test_own_module\.py runs this -->\n```python\n(.*?)```", HOW_TO.read_text("utf-8"), re.DOTALL)
    assert written
    module = types.ModuleType(WHERE)
    monkeypatch.setitem(sys.modules, WHERE, module)
    exec(compile(written[1], str(HOW_TO), "exec"), vars(module))
    return module.Gated  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def pytorch_as_it_was() -> Any:
    """It sets threads and algorithms for its process, which is a training's own."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def test_it_is_written_and_read_like_any_other(gated: Any, tmp_path: Path) -> None:
    """Also after it has answered; the same bytes when it is fitted again."""
    fitted = gated().fit(WHOLE, TWO)
    expected = fitted.predict_proba(WHOLE)
    assert fitted.score(WHOLE, TWO) > 0.8
    model_file.dump(fitted, tmp_path / "a.skops")
    model_file.dump(gated().fit(WHOLE, TWO), tmp_path / "b.skops")
    assert (tmp_path / "a.skops").read_bytes() == (tmp_path / "b.skops").read_bytes()
    assert model_file.unreviewed_types(fitted, own="models.toy") == []
    loaded: Any = model_file.load(tmp_path / "a.skops", None, own="models.toy")
    np.testing.assert_array_equal(loaded.predict_proba(WHOLE), expected)
    alone = np.vstack([loaded.predict_proba(WHOLE[i : i + 1]) for i in range(20)])
    np.testing.assert_allclose(alone, expected[:20], rtol=1e-12)
