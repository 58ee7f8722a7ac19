"""Nets: small networks for tables and for texts. PyTorch trains them, numpy answers: a release needs no PyTorch.

What is kept of a net is its numbers, so it is written to the same model file as any other estimator: there is no
`.pt2`, whose loading can run code, and no class of PyTorch that would have to be trusted (docs/decisions/nets.md).
Training computes in 32 bits; answers are computed in 64, so that what a row is answered does not depend on the rows
beside it: it moves by 1e-16, not by 1e-7 as it would in 32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import pairwise
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from tasks.runtime.families.family import Family

if TYPE_CHECKING:
    from torch import Tensor

Floats = npt.NDArray[np.float64]

AT_ONCE = 4096
"""Rows that go through the layers together, so that what is between two layers stays small."""

FEWEST_INNER = 10
"""Rows by which training may be stopped early: by fewer it would be chance."""

MOST_CODES = 100_000
"""Categories of a column: a number beyond is no code."""


class NoNumber(ValueError):
    """A net came to NaN or infinity: in training, or for a row."""


class Net(BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """What the nets have in common.

    Of a dense matrix, numbers are standardised; a missing one (NaN) counts as the mean, and a further input says that
    it is missing where training had such rows. Of a sparse matrix (words by their hashes, one-hot categories) each
    column has a vector, and a row is the weighted sum of the vectors of its columns: an embedding bag. A column that
    was empty in training counts nothing.

    Args:
        hidden: sizes of the hidden layers.
        loss: of a regressor: squared (it answers the mean; the default), absolute (the median), or poisson (the mean
            of counts).
        categories: so many of the first columns are codes of categories, as `ordinal_codes.Codes` gives them: each
            code has a vector. Those that training did not have share one with what is missing.
        embedding: length of such a vector, at most.
        epochs: how often training goes through the rows, at most.
        learning_rate: of AdamW.
        batch_size: rows of a step; None: a fiftieth of all, from 32 to 512.
        weight_decay: of AdamW.
        dropout: share of the hidden units that a step leaves out.
        validation: share of the rows, drawn by the seed, by whose loss training stops early; 0: it does not.
        patience: epochs without a smaller loss there after which it stops; what is kept is the best epoch's.
        device: where PyTorch trains: cpu, cuda, mps. On cpu the same rows give the same net.
        random_state: seed.
    """

    def __init__(
        self,
        hidden: Sequence[int] = (64, 32),
        *,
        loss: str | None = None,
        categories: int = 0,
        embedding: int = 8,
        epochs: int = 100,
        learning_rate: float = 0.003,
        batch_size: int | None = None,
        weight_decay: float = 0.01,
        dropout: float = 0.1,
        validation: float = 0.1,
        patience: int = 6,
        device: str = "cpu",
        random_state: int | None = 0,
    ) -> None:
        self.hidden = hidden
        self.loss = loss
        self.categories = categories
        self.embedding = embedding
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.weight_decay = weight_decay
        self.dropout = dropout
        self.validation = validation
        self.patience = patience
        self.device = device
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.input_tags.sparse = True
        return tags

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "hidden": ["array-like"],
        "loss": [StrOptions({"squared", "absolute", "poisson"}), None],
        "categories": [Interval(Integral, 0, None, closed="left")],
        "embedding": [Interval(Integral, 1, None, closed="left")],
        "epochs": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "validation": [Interval(Real, 0, 1, closed="left")],
        "patience": [Interval(Integral, 1, None, closed="left")],
        "device": [str],
        "random_state": ["random_state"],
    }

    # ── what a row is to the first layer ──────────────────────────────────────────────────────────

    def _learn_columns(self, matrix: Any) -> None:
        """Keep mean and spread of numbers, which of them have gaps, how many codes; or which columns are not empty."""
        self.columns_ = np.unique(matrix.indices) if sparse.issparse(matrix) else None
        if self.columns_ is not None:
            return
        codes, numbers = matrix[:, : self.categories], matrix[:, self.categories :]
        self.known_ = np.fmax.reduce(codes, axis=0, initial=-1.0).astype(np.int64) + 1
        gaps = np.isnan(numbers)
        present = np.maximum(1, (~gaps).sum(axis=0))
        self.mean_ = np.where(gaps, 0.0, numbers).sum(axis=0) / present
        spread = np.sqrt((np.where(gaps, 0.0, numbers - self.mean_) ** 2).sum(axis=0) / present)
        self.scale_ = np.where(spread > 1e-12 * np.abs(self.mean_), spread, 1.0)
        self.gaps_ = gaps.any(axis=0)

    def _inputs(self, matrix: Any) -> tuple[Any, npt.NDArray[np.int64]]:
        """Numbers of the first layer (dense, or sparse by the columns that count), and places among the vectors."""
        if self.columns_ is not None:
            return _of_columns(matrix, self.columns_), np.empty((matrix.shape[0], 0), dtype=np.int64)
        codes = matrix[:, : self.categories]
        numbers = (matrix[:, self.categories :] - self.mean_) / self.scale_
        gaps = np.isnan(numbers)
        numbers[gaps] = 0.0
        if self.gaps_.any():
            numbers = np.hstack([numbers, gaps[:, self.gaps_]])
        is_known = (codes >= 0) & (codes < self.known_)
        return numbers, np.where(is_known, codes + 1, 0).astype(np.int64)

    # ── answers ───────────────────────────────────────────────────────────────────────────────────

    def _output(self, X: Any) -> Floats:  # noqa: N803 - scikit-learn's name
        """What the last layer gives: shape (rows, outputs)."""
        check_is_fitted(self, "weights_")
        matrix = X if self._is_plain(X) else self._matrix(X)
        parts = [self._through_layers(matrix[i : i + AT_ONCE]) for i in range(0, matrix.shape[0], AT_ONCE)]
        return parts[0] if len(parts) == 1 else np.vstack(parts)

    def _through_layers(self, matrix: Any) -> Floats:
        numbers, places = self._inputs(matrix)
        if places.shape[1]:
            vectors = [vectors[at] for vectors, at in zip(self.vectors_, places.T, strict=True)]
            numbers = np.hstack([*vectors, numbers])
        with np.errstate(all="ignore"):  # what is no number, `_finite` refuses
            output: Floats = through(numbers @ self.weights_[0], self.weights_, self.biases_)
        return output

    def _is_plain(self, X: Any) -> bool:  # noqa: N803
        """Whether it is a matrix as it is needed, as a request's is: to check it takes ten times as long as the net."""
        is_matrix = type(X) is np.ndarray and X.dtype == np.float64 and X.ndim == 2 and len(X) > 0
        return is_matrix and self.columns_ is None and X.shape[1] == self.n_features_in_

    def _matrix(self, X: Any) -> Any:  # noqa: N803
        """Checked, and dense or sparse as the rows of training were."""
        matrix = validate_data(self, X, reset=False, **_KINDS)
        if self.columns_ is not None:
            return _csr(matrix)
        return matrix.toarray() if sparse.issparse(matrix) else matrix

    # ── training ──────────────────────────────────────────────────────────────────────────────────

    def _train(self, X: Any, target: npt.NDArray[Any], outputs: int, loss: str, sample_weight: Any) -> None:  # noqa: N803
        self._validate_params()
        matrix = _csr(X) if sparse.issparse(X) or self._is_of_texts else X
        self._refuse_sizes(0 if sparse.issparse(matrix) else matrix.shape[1])
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        self._learn_columns(matrix)
        if self.columns_ is None and self.known_.max(initial=0) > MOST_CODES:
            raise ValueError(
                f"categories={self.categories}: column {self.known_.argmax()} holds no codes of categories"
            )
        inputs, places = self._inputs(matrix)
        made, self.n_iter_ = train(self, inputs, places, target, weight, outputs=outputs, loss=loss)
        self.vectors_, self.weights_, self.biases_ = made

    def _refuse_sizes(self, columns: int) -> None:
        if not all(isinstance(size, int | np.integer) and size > 0 for size in self.hidden):
            raise ValueError(f"hidden must be whole numbers above 0, not {self.hidden!r}")
        if self.categories > columns:
            raise ValueError(f"categories={self.categories}: of this matrix at most {columns} columns can be codes")

    _is_of_texts = False


_KINDS: dict[str, Any] = {"accept_sparse": "csr", "dtype": np.float64, "ensure_all_finite": "allow-nan"}


def _csr(matrix: Any) -> Any:
    """A sparse matrix of it, in which no number may be missing."""
    made = sparse.csr_matrix(matrix)
    if not np.isfinite(made.data).all():
        raise ValueError("Input X contains NaN: what is missing in a sparse matrix must be filled before the net")
    made.sum_duplicates()
    return made


def _of_columns(matrix: Any, columns: npt.NDArray[np.int64]) -> Any:
    """The columns of a sparse matrix that are named, sorted: CSR of shape (rows, columns)."""
    if not len(columns):
        return sparse.csr_matrix((matrix.shape[0], 0))
    places = np.searchsorted(columns, matrix.indices).clip(max=len(columns) - 1)
    numbers = np.where(columns[places] == matrix.indices, matrix.data, 0.0)
    return sparse.csr_matrix((numbers, places, matrix.indptr), shape=(matrix.shape[0], len(columns)))


def _finite(answers: Floats) -> Floats:
    """The answers of rows, none of which is NaN or infinite.

    Raises:
        NoNumber: says of which row it is.
    """
    if not np.isfinite(answers).all():
        row = int(np.argwhere(~np.isfinite(answers))[0, 0])
        raise NoNumber(f"the net answers NaN or infinity for row {row}: it holds a number far beyond those of training")
    return answers


def through(h: Any, weights: Sequence[Any], biases: Sequence[Any], drop: Any = None) -> Any:
    """What the layers make of `h`, the inputs times the first weights: of numpy's arrays as of PyTorch's tensors.

    Args:
        h: shape (rows, units of the first layer).
        weights: of each layer; between two layers stands a rectifier.
        biases: of each layer.
        drop: of training: what it leaves of the hidden units.
    """
    h = h + biases[0]
    for weight, bias in zip(weights[1:], biases[1:], strict=True):
        h = h * (h > 0)
        h = (drop(h) if drop else h) @ weight + bias
    return h


class NetClassifier(ClassifierMixin, Net):  # type: ignore[misc]
    """A net that answers the probability of each class. Parameters: as `Net`, but for `loss`."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {**Net._parameter_constraints, "loss": [None]}

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> NetClassifier:  # noqa: N803
        """Learn from `X` (rows, columns) and the class of each row; a weight says how often a row counts."""
        X, y = validate_data(self, X, y, **_KINDS)  # noqa: N806
        check_classification_targets(y)
        self.classes_, places = np.unique(y, return_inverse=True)
        self._train(X, places, len(self.classes_), "log", sample_weight)
        return self

    def predict_proba(self, X: Any) -> Floats:  # noqa: N803
        """The probability of each of `classes_`: shape (rows, classes)."""
        output = self._output(X)
        with np.errstate(all="ignore"):
            odds = np.exp(output - output.max(axis=1, keepdims=True))
        return _finite(odds / odds.sum(axis=1, keepdims=True))

    def predict(self, X: Any) -> npt.NDArray[Any]:  # noqa: N803
        """The most probable class: shape (rows,)."""
        places = self.predict_proba(X).argmax(axis=1)
        answers: npt.NDArray[Any] = self.classes_[places]
        return answers


class TextNetClassifier(NetClassifier):
    """A net of texts, behind a `HashingVectorizer` of words or of characters, and of whatever stands beside them.

    Each hash has a vector, and a text is the sum of the vectors of its words. Nothing of a text is kept, nor any word.
    Parameters: as `Net`.
    """

    _is_of_texts = True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = False
        return tags


class NetRegressor(RegressorMixin, Net):  # type: ignore[misc]
    """A net that answers a number. Parameters: as `Net`."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> NetRegressor:  # noqa: N803
        """Learn from `X` (rows, columns) and the number of each row; a weight says how often a row counts."""
        X, y = validate_data(self, X, y, y_numeric=True, **_KINDS)  # noqa: N806
        loss = self.loss or "squared"
        is_count = loss == "poisson"
        if is_count and (y.min() < 0 or not y.any()):
            raise ValueError("loss poisson is of counts: the labels must be 0 or more, and some above 0")
        # the net learns numbers near 0 and 1: of counts what they are a multiple of, of others how many spreads off
        self.centre_, self.spread_ = (0.0, float(y.mean())) if is_count else (float(y.mean()), float(y.std()) or 1.0)
        self._train(X, (y - self.centre_) / self.spread_, 1, loss, sample_weight)
        return self

    def predict(self, X: Any) -> Floats:  # noqa: N803
        """The expected number (of loss absolute the median): shape (rows,)."""
        answers = self._output(X)[:, 0]
        with np.errstate(all="ignore"):
            answers = np.exp(answers) if self.loss == "poisson" else answers
        return _finite(answers * self.spread_ + self.centre_)


# ── training ────────────────────────────────────────────────────────────────────────────────────


class Numbers(NamedTuple):
    """What training finds: vectors of categories, weights and biases of layers; each is a list of arrays or tensors."""

    vectors: list[Any]
    weights: list[Any]
    biases: list[Any]


def train(
    net: Net,
    inputs: Any,
    places: npt.NDArray[np.int64],
    target: npt.NDArray[Any],
    weight: Floats,
    *,
    outputs: int,
    loss: str,
) -> tuple[Numbers, int]:
    """Find the numbers of a net, and say in how many epochs.

    Args:
        net: its parameters.
        inputs: numbers of the first layer: dense or CSR, shape (rows, columns).
        places: of each row among the vectors of each category: shape (rows, categories).
        target: of each row the place of its class, or a number.
        weight: of each row.
        outputs: how many numbers the last layer gives.
        loss: log, squared, absolute or poisson.

    Raises:
        ValueError: PyTorch is missing, or knows no such device.
        NoNumber: the loss became NaN or infinite.
    """
    device = _device(net)
    import torch

    with _reproducible(net.random_state):
        learn, inner = _split(net.validation, target, by_class=loss == "log")
        numbers = _drawn(net, inputs, outputs)
        tensors = Numbers(*([each.to(device).requires_grad_() for each in group] for group in numbers))
        first = (_bag if sparse.issparse(inputs) else _table)(inputs, places, tensors, device)
        labels = torch.from_numpy(target if loss == "log" else target.astype(np.float32)).to(device)
        weights = torch.from_numpy((weight / weight.mean()).astype(np.float32)).to(device)

        def mean_loss(rows: Tensor, drop: Any = None) -> Tensor:
            output = through(first(rows), tensors.weights, tensors.biases, drop)
            return (_LOSSES[loss](output, labels[rows]) * weights[rows]).mean()

        epochs = _descend(net, mean_loss, [each for group in tensors for each in group], learn, inner)
    return Numbers(*([each.detach().cpu().numpy().astype(np.float64) for each in group] for group in tensors)), epochs


def _descend(net: Net, mean_loss: Callable[..., Tensor], tensors: list[Tensor], learn: Tensor, inner: Tensor) -> int:
    """Go down the loss, and stop where that of the inner rows no longer falls. Gives the number of epochs."""
    import torch

    # fused: the other one takes roots by MKL, whose last bit depends on the processor
    optimizer = torch.optim.AdamW(tensors, lr=net.learning_rate, weight_decay=net.weight_decay, fused=True)
    size = net.batch_size or min(max(len(learn) // 50, 32), 512)
    drop = (lambda h: torch.nn.functional.dropout(h, net.dropout)) if net.dropout else None
    best, kept, waited, epoch = np.inf, [each.detach().clone() for each in tensors], 0, 0
    while epoch < net.epochs and waited < net.patience:
        epoch += 1
        for rows in learn[torch.randperm(len(learn))].split(size):
            optimizer.zero_grad()
            loss = mean_loss(rows, drop)
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            reached = float(mean_loss(inner if len(inner) else rows))
            if not np.isfinite(reached):
                raise NoNumber(_no_number(net, epoch))
            waited = waited + 1 if reached >= best and len(inner) else 0
            if not waited:
                best, kept = reached, [each.detach().clone() for each in tensors]
    with torch.no_grad():
        for each, value in zip(tensors, kept, strict=True):
            each.copy_(value)
    return epoch


def _no_number(net: Net, epoch: int) -> str:
    return (
        f"the net's loss became NaN or infinite in epoch {epoch}: lower learning_rate (it is {net.learning_rate:g}), "
        f"and look for values that are far beyond the others"
    )


def _split(share: float, target: npt.NDArray[Any], *, by_class: bool) -> tuple[Tensor, Tensor]:
    """Which rows are learned from, and which tell when to stop: a share, of each class alike."""
    import torch

    order = torch.randperm(len(target))
    if len(target) * share < FEWEST_INNER:
        return order, order[:0]
    if by_class:
        order = order[torch.from_numpy(target)[order].argsort(stable=True)]
    every = max(round(1 / share), 2)
    is_inner = torch.arange(len(order)) % every == every // 2
    return order[~is_inner], order[is_inner]


def _drawn(net: Net, inputs: Any, outputs: int) -> Numbers:
    """Numbers to begin with. The vector of what is missing or unknown is 0 until training has such a row."""
    import torch

    known = [] if sparse.issparse(inputs) else net.known_.tolist()
    vectors = [torch.randn(count + 1, min(net.embedding, count + 1)) * 0.1 for count in known]
    for each in vectors:
        each[0] = 0.0
    sizes = [inputs.shape[1] + sum(each.shape[1] for each in vectors), *net.hidden, outputs]
    weights: list[Any] = []
    biases: list[Any] = []
    for before, after in pairwise(sizes):
        limit = 0.1 if sparse.issparse(inputs) and not weights else max(before, 1) ** -0.5  # as torch.nn.Linear has it
        weights.append((torch.rand(before, after) * 2 - 1) * limit)
        biases.append((torch.rand(after) * 2 - 1) * limit)
    return Numbers(vectors, weights, biases)


def _table(inputs: Any, places: npt.NDArray[np.int64], tensors: Numbers, device: Any) -> Callable[[Tensor], Tensor]:
    """The first layer of a dense matrix, of some of its rows: vectors of the categories beside the numbers."""
    import torch
    from torch.nn.functional import embedding

    numbers, at = torch.from_numpy(inputs.astype(np.float32)).to(device), torch.from_numpy(places).to(device)

    def first(rows: Tensor) -> Tensor:
        vectors = [embedding(at[rows, i], vectors) for i, vectors in enumerate(tensors.vectors)]
        product: Tensor = torch.cat([*vectors, numbers[rows]], dim=1) @ tensors.weights[0]
        return product

    return first


def _bag(inputs: Any, _: npt.NDArray[np.int64], tensors: Numbers, device: Any) -> Callable[[Tensor], Tensor]:
    """The first layer of a sparse matrix, of some of its rows: the weighted sum of the vectors of a row's columns."""
    import torch
    from torch.nn.functional import embedding_bag

    def first(rows: Tensor) -> Tensor:
        part = inputs[rows.numpy()]
        columns, begins = (torch.from_numpy(each.astype(np.int64)).to(device) for each in (part.indices, part.indptr))
        factors = torch.from_numpy(part.data.astype(np.float32)).to(device)
        return embedding_bag(columns, tensors.weights[0], begins[:-1], mode="sum", per_sample_weights=factors)

    return first


def _log(output: Tensor, label: Tensor) -> Tensor:
    from torch.nn.functional import cross_entropy

    return cross_entropy(output, label, reduction="none")


_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "log": _log,
    "squared": lambda output, label: (output[:, 0] - label) ** 2,
    "absolute": lambda output, label: (output[:, 0] - label).abs(),
    "poisson": lambda output, label: output[:, 0].exp() - label * output[:, 0],
}
"""Of each row: output of shape (rows, outputs), label of shape (rows,)."""


# ── PyTorch ───────────────────────────────────────────────────────────────────────────────────────


def _device(net: Net) -> Any:
    """The device that the net names.

    Raises:
        ValueError: PyTorch is not installed, or has no such device here.
    """
    kind = type(net).__name__
    if find_spec("torch") is None:
        raise ValueError(f"{kind} is trained by PyTorch, which is not installed: `make setup WITH=torch` brings it")
    import torch

    wanted, way_out = net.device, "leave device out: on cpu every machine makes the same net"
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise ValueError(f"device {wanted!r} is none that PyTorch knows (cpu, cuda, mps); {way_out}") from None
    has = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not has.get(device.type, False):
        raise ValueError(f"device {wanted!r}: PyTorch {torch.__version__} finds no such device here; {way_out}")
    return device


@contextmanager
def _reproducible(random_state: Any) -> Iterator[None]:
    """One thread, only algorithms that always give the same, and draws that begin at a seed. Afterwards all as before.

    On more threads sums would be split otherwise, and so rounded; threads that wait would also spin beside each other.
    Which instructions are used is pinned for the whole process (tasks/ground/settings.py).
    """
    import torch

    threads = torch.get_num_threads()
    mode = torch.get_deterministic_debug_mode()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(check_random_state(random_state).randint(2**31)))
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.set_deterministic_debug_mode(mode)


class PyTorch(Family):
    """Of a net nothing is kept but numbers, and answers are computed in double precision."""

    title = "PyTorch"
    package = group = "torch"
    distributions = ("torch",)
    reviewed = frozenset(f"{__name__}.{net.__name__}" for net in (NetClassifier, NetRegressor, TextNetClassifier))
    most_probable = frozenset({"NetClassifier", "TextNetClassifier"})

    def answers_with(self, module: str) -> str | None:
        """A net learned by PyTorch, and answers without."""
        return None if module == __name__ else super().answers_with(module)

    def problem(self, estimator: Any) -> str | None:
        """PyTorch is missing, or the device that is named."""
        try:
            _device(estimator)
        except ValueError as error:
            return str(error)
        return None


FAMILY = PyTorch()
