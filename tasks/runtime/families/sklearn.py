"""scikit-learn, what it is made of, and the types of this project that a model file may hold."""

from __future__ import annotations

import re
from typing import Any

from tasks.runtime.families.family import Family


class ScikitLearn(Family):
    """skops trusts the public estimators itself; here stands what they are made of."""

    title = "scikit-learn"
    package = "sklearn"
    distributions = ("scikit-learn",)
    reviewed = frozenset(
        {
            "functools.partial",  # only of functions that are on this list themselves
            "numpy.dtype",
            "numpy.random._pickle.__bit_generator_ctor",
            "scipy._lib.array_api_compat.numpy._aliases.asarray",
            "scipy.interpolate._bsplines.BSpline",
            "scipy.sparse._csr.csr_matrix",
            "sklearn._loss.link.HalfLogitLink",
            "sklearn._loss.link.IdentityLink",
            "sklearn._loss.link.Interval",
            "sklearn._loss.link.LogLink",
            "sklearn._loss.link.LogitLink",
            "sklearn._loss.link.MultinomialLogit",
            "sklearn._loss.loss.AbsoluteError",
            "sklearn._loss.loss.HalfBinomialLoss",
            "sklearn._loss.loss.HalfGammaLoss",
            "sklearn._loss.loss.HalfMultinomialLoss",
            "sklearn._loss.loss.HalfPoissonLoss",
            "sklearn._loss.loss.HalfSquaredError",
            "sklearn._loss.loss.HalfTweedieLoss",
            "sklearn._loss.loss.HalfTweedieLossIdentity",
            "sklearn._loss.loss.PinballLoss",
            "sklearn.calibration._CalibratedClassifier",
            "sklearn.calibration._SigmoidCalibration",
            "sklearn.compose._column_transformer.make_column_selector",
            "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
            "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
            "sklearn.feature_selection._mutual_info.mutual_info_classif",
            "sklearn.feature_selection._mutual_info.mutual_info_regression",
            "sklearn.feature_selection._univariate_selection.chi2",
            "sklearn.feature_selection._univariate_selection.f_classif",
            "sklearn.feature_selection._univariate_selection.f_regression",
            "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
            "sklearn.gaussian_process.kernels.CompoundKernel",
            "sklearn.gaussian_process.kernels.ConstantKernel",
            "sklearn.gaussian_process.kernels.DotProduct",
            "sklearn.gaussian_process.kernels.ExpSineSquared",
            "sklearn.gaussian_process.kernels.Exponentiation",
            "sklearn.gaussian_process.kernels.Matern",
            "sklearn.gaussian_process.kernels.Product",
            "sklearn.gaussian_process.kernels.RBF",
            "sklearn.gaussian_process.kernels.RationalQuadratic",
            "sklearn.gaussian_process.kernels.Sum",
            "sklearn.gaussian_process.kernels.WhiteKernel",
            "sklearn.metrics._dist_metrics.EuclideanDistance64",
            "sklearn.metrics._dist_metrics.MinkowskiDistance64",
            "sklearn.metrics._classification.accuracy_score",
            "sklearn.metrics._classification.balanced_accuracy_score",
            "sklearn.metrics._classification.brier_score_loss",
            "sklearn.metrics._classification.f1_score",
            "sklearn.metrics._classification.log_loss",
            "sklearn.metrics._classification.precision_score",
            "sklearn.metrics._classification.recall_score",
            "sklearn.metrics._ranking.average_precision_score",
            "sklearn.metrics._ranking.roc_auc_score",
            "sklearn.metrics._scorer._CurveScorer",  # calls a function that must be on this list itself
            "sklearn.metrics._scorer._PassthroughScorer",
            "sklearn.metrics._scorer._Scorer",  # as _CurveScorer
            "sklearn.model_selection._split.KFold",
            "sklearn.model_selection._split.StratifiedKFold",
            "sklearn.neighbors._ball_tree.BallTree",
            "sklearn.neighbors._kd_tree.KDTree",
            "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
            "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
            "sklearn.preprocessing._label.LabelBinarizer",
            "sklearn.tree._tree.Tree",
            "sklearn.utils._bunch.Bunch",
            "sklearn.utils._metadata_requests.MetadataRequest",  # names of arguments
            "sklearn.utils._metadata_requests.MethodMetadataRequest",
            "sklearn.utils.validation.check_array",
            "tasks.runtime.alert_budget.AlertBudget",  # of this project: an estimator and a number
            "tasks.runtime.conformal.Conformal",  # of this project: a pipeline and numbers
            "tasks.runtime.ordinal_codes.Codes",  # of this project: dicts of text to number
            "tasks.runtime.outputs.Outputs",  # of this project: estimators, names and classes
        }
    )

    def written_by(self, member: bytes) -> tuple[int, ...] | None:
        """As each estimator says; scikit-learn itself only warns of a newer one."""
        said = re.search(rb'"_sklearn_version":\{[^}]*"content":"\\"(\d+)\.(\d+)', member)
        return (int(said[1]), int(said[2])) if said else None

    def settle(self, fitted: Any) -> None:
        """A search keeps how long its fits took, and histogram boosting how many threads divided its bins."""
        if mapper := getattr(fitted, "_bin_mapper", None):
            mapper.n_threads = 1
        if hasattr(fitted, "refit_time_"):
            fitted.refit_time_ = 0.0
        results = getattr(fitted, "cv_results_", None)
        if isinstance(results, dict):
            for name in results:
                if str(name).endswith("_time"):
                    results[name] = results[name] * 0.0


FAMILY = ScikitLearn()
