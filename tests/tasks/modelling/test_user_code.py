"""A team's own code, found by the name of the model, and the estimator that params.yaml names."""

from __future__ import annotations

from typing import Any

import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, VotingClassifier
from sklearn.linear_model import Ridge

from tasks.ground import params
from tasks.ground.errors import ModelCodeError
from tasks.modelling import user_code
from tasks.tables import partitions
from tests.conftest import REPOSITORY, Project


def wanted(class_: str, **settings: Any) -> params.Estimator:
    """The section `estimator` of params.yaml."""
    return params.Estimator.model_validate({"class": class_, **settings})


def refusal(class_: str, **settings: Any) -> str:
    """What is said of an estimator that cannot be made."""
    with pytest.raises(ModelCodeError) as caught:
        user_code.make_estimator(wanted(class_, **settings))
    return str(caught.value)


def test_the_estimator_has_its_hyper_parameters_and_its_seed() -> None:
    """The seed goes where scikit-learn takes one."""
    made = user_code.make_estimator(
        wanted("sklearn.ensemble.HistGradientBoostingClassifier", params={"max_iter": 7}, seed=3)
    )
    assert isinstance(made, HistGradientBoostingClassifier)
    assert (made.max_iter, made.random_state) == (7, 3)


def test_a_random_state_that_is_asked_for_wins_over_the_seed() -> None:
    """It was written on purpose."""
    made = user_code.make_estimator(wanted("sklearn.linear_model.Ridge", params={"random_state": 5}, seed=3))
    assert isinstance(made, Ridge)
    assert made.random_state == 5


def test_an_estimator_that_takes_no_seed_is_made_without() -> None:
    """And one whose arguments are required is made of them."""
    user_code.make_estimator(wanted("sklearn.neighbors.KNeighborsClassifier"))
    made = user_code.make_estimator(wanted("sklearn.ensemble.VotingClassifier", params={"estimators": []}))
    assert isinstance(made, VotingClassifier)


def test_an_estimator_of_a_teams_own_is_found_below_models() -> None:
    """As one of scikit-learn's is."""
    own = "models.hourly_departures.pipeline.interval.WithInterval"
    made = user_code.make_estimator(wanted(own, params={"estimator": Ridge()}))
    assert type(made).__name__ == "WithInterval"


def test_an_estimator_that_cannot_be_made_is_told_with_what_it_takes() -> None:
    """Where it stands in params.yaml, and what is wrong with it."""
    assert refusal("sklearn.linear_model.Ridge", params={"alfa": 1}) == (
        "params.yaml: estimator.params does not fit sklearn.linear_model.Ridge: Ridge.__init__() got an unexpected "
        "keyword argument 'alfa'. It takes: alpha, copy_X, fit_intercept, max_iter, positive, random_state, solver, tol"
    )
    assert "missing 1 required positional argument: 'estimators'" in refusal("sklearn.ensemble.VotingClassifier")
    assert refusal("sklearn.linear_model.Rige").endswith("sklearn.linear_model has no Rige; did you mean 'Ridge'?")
    assert refusal("sklearn.liner.Ridge").startswith("params.yaml: estimator.class: there is no module sklearn.liner")


def test_a_package_that_is_not_installed_is_told_with_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The group of the lock, where it is a family; else where a requirement is added."""
    monkeypatch.setattr(user_code, "find_spec", lambda _: None)
    assert refusal("lightgbm.LGBMClassifier") == (
        "params.yaml: estimator.class: LightGBM is not installed: `make setup WITH=lightgbm` brings it"
    )
    assert "nosuch is not installed: add it to pyproject.toml" in refusal("nosuch.Booster")


@pytest.mark.parametrize("class_", ["collections.Counter", "sklearn.metrics.f1_score", "subprocess.run"])
def test_what_is_no_estimator_is_told_and_is_not_called(class_: str) -> None:
    """A class without fit, a function, a command."""
    assert f"{class_} is no estimator" in refusal(class_)


@pytest.mark.parametrize("name", ["flight_delay", "hourly_departures"])
def test_the_models_that_ship_build_their_pipelines(name: str) -> None:
    """Unfitted, and ending in the estimator."""
    model = params.load(REPOSITORY / "params.yaml").model(name)
    pipeline = user_code.build_pipeline(name, model)
    assert pipeline.steps[-1][0] == "estimator"


JANUARY = partitions.wanted("2013-01")


def test_the_options_of_params_yaml_reach_the_rows(small: Project) -> None:
    """As keyword arguments."""
    import pandas as pd

    model = params.load().model("tiny")
    reading = {"station": "north", "hour": 0, "starts": 1, "pressure": 1.0, "vibration": 1.0, "failures": 3}
    readings = pd.DataFrame([{**reading, "at": pd.Timestamp("2013-01-01")}])
    for above, label in ((2, 1), (3, 0)):
        rows = user_code.rows_function("tiny", model.model_copy(update={"options": {"fails_above": above}}), JANUARY)
        assert rows({"readings": readings})["label"].tolist() == [label]


def test_rows_that_ask_for_it_are_told_of_which_partition_they_are(small: Project) -> None:
    """By its name, and the time that the name says; an option of that name stays an option."""
    import pandas as pd

    code = small.root / "models" / "tiny" / "rows" / "__init__.py"
    code.write_text("import pandas as pd\ndef rows(tables, partition): return pd.DataFrame({'got': [partition]})\n")
    model = params.load().model("tiny").model_copy(update={"options": {}})
    (got,) = user_code.rows_function("tiny", model, JANUARY)({})["got"]
    assert (got.name, got.begin, got.end) == ("2013-01", pd.Timestamp("2013-01-01"), pd.Timestamp("2013-02-01"))
    given = model.model_copy(update={"options": {"partition": 3}})
    assert user_code.rows_function("tiny", given, JANUARY)({})["got"].tolist() == [3]


def test_a_model_without_its_code_is_told_which_file_is_missing(small: Project) -> None:
    """An entry in params.yaml and no folder, or a folder and not the function."""
    model = params.load().model("tiny")
    with pytest.raises(ModelCodeError) as caught:
        user_code.rows_function("nothing", model, JANUARY)
    assert str(caught.value) == "there is no module models.nothing.rows (models/nothing/rows/__init__.py)"
    (small.root / "models" / "tiny" / "pipeline" / "__init__.py").write_text("")
    with pytest.raises(ModelCodeError, match=r"^models\.tiny\.pipeline has no build$"):
        user_code.build_pipeline("tiny", model)


ABOUT = {"about": "x", "example": 0}
OF_TYPES: dict[str, dict[str, Any]] = {
    "n": {"type": "number", **ABOUT},
    "yes": {"type": "boolean", "about": "x", "example": True},
    "due": {"type": "datetime", "about": "x", "example": "2024-01-01T00:00:00"},
    "message": {"type": "text", "about": "x", "example": "hello"},
    "image": {"type": "vector", "length": 2, **ABOUT},
}


def handed(build: Any, types: list[str], patch: pytest.MonkeyPatch) -> Any:
    """What a team's `build` is handed for features of some types."""
    model = params.load(REPOSITORY / "tests" / "small" / "params.yaml").model("tiny")
    features = {name: params.Feature.model_validate(OF_TYPES[name]) for name in types}
    patch.setattr(user_code, "_attribute", lambda *_, **__: build)
    patch.setattr(user_code, "make_estimator", lambda _: None)
    return user_code.build_pipeline("tiny", model.model_copy(update={"features": features}))


def test_a_pipeline_is_handed_the_kinds_of_columns_that_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that names categories and numbers gets truth values among its numbers."""
    old = handed(lambda _, categories, numbers: (categories, numbers), ["n", "yes"], monkeypatch)
    assert old == ([], ["n", "yes"])

    def build(_: Any, categories: Any, numbers: Any, texts: Any, booleans: Any, datetimes: Any, vectors: Any) -> Any:
        return numbers, texts, booleans, datetimes, vectors

    new = handed(build, list(OF_TYPES), monkeypatch)
    assert new == (["n"], ["message"], ["yes"], ["due"], {"image": ["image_0", "image_1"]})
    assert handed(lambda _, **kinds: sorted(kinds), ["n", "due"], monkeypatch) == ["categories", "datetimes", "numbers"]


def test_a_pipeline_that_does_not_name_a_kind_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the model would learn without these columns, and nobody would know."""
    with pytest.raises(ModelCodeError, match=r"build takes no `texts` \(message\); `vectors` \(image\), which params"):
        handed(lambda _, categories, numbers: (categories, numbers), ["n", "message", "image"], monkeypatch)
