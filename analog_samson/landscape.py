"""Sharpness of the loss minimum of a trained network.

With a loss L, weights w and an offset from a rule of `perturbation`, the *rise* is
``L(w + offset) - L(w)``. Its name depends on the rule:

    sam       worst case in a ball of radius rho, to first order        Foret et al., 2010.01412
    adaptive  worst case where w_i may move by rho |w_i|                Kwon et al., 2102.11600
    samson    the same, relative to the largest |w| of each tensor      Mordido et al., 2211.11561
    average   mean over Gaussian noise relative to the largest |w| of each tensor: as on an
              array whose largest weight is mapped to g_max

Worst cases are one step along the gradient, as in the training methods, so they are lower bounds of
the true maximum. Everything is measured on training images, in evaluation mode.
"""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn

from analog_samson.checkpoint import Checkpoint, load_checkpoint
from analog_samson.data import Dataset, load_dataset
from analog_samson.deprecated import accepts_old_names, old_names
from analog_samson.losses import task_loss
from analog_samson.memory import freed_memory_kept
from analog_samson.perturbation import Rule, asam, is_weight, perturbed, rwp, sam, samson

Loss = Callable[[nn.Module], Iterable[Tensor]]
"""Yields the summands of a loss, one per batch, so that only one batch is in memory."""

RHO_SAM = 0.05
RHO_ADAPTIVE = 0.5
RHO_SAMSON = 0.5
"""Radii that the authors of the methods train with."""

SIGMA = 0.05
"""Noise relative to the largest weight of a tensor: our choice, a PCM programming error (1.06 µS of
25 µS, 4 %), rounded up."""

CONFIDENCE_OF_BOUND = 0.95

BATCH = 50
"""Inputs in a batch of `sharpness`: our choice. Products with the Hessian keep all that a batch
computes, and those of a DS-CNN for spectrograms take 3.7 times as long by 500 as by 64."""

LANCZOS_VECTORS = 8
"""Vectors of the Lanczos iteration: 9 Hessian-vector products suffice where the usual 20 vectors
take 21; the eigenvalues of LeNet-5 and of an LSTM agree to 2e-6."""

SHARPNESS_COLUMNS = (
    "checkpoint",
    "dataset",
    "model",
    "method",
    "strength",
    "training_seed",
    "n_training_images",
    "loss",
    "gradient_norm",
    "sam_sharpness",
    "adaptive_sharpness",
    "samson_sharpness",
    "average_sharpness",
    "hessian_eigenvalue",
    "kl_divergence",
    "complexity",
    "rho_sam",
    "rho_adaptive",
    "rho_samson",
    "sigma",
)
"""Columns of ``sharpness.csv``; ``checkpoint`` is the column of that name in ``trials.csv``."""


@accepts_old_names(n_images="n_training_images")
@freed_memory_kept()
def sharpness(
    checkpoint: Checkpoint | str | Path,
    dataset: Dataset | None = None,
    *,
    data_folder: Path | None = None,
    n_training_images: int = 1000,
    draws: int = 10,
    seed: int = 0,
    trust: Sequence[str] = (),
) -> dict[str, Any]:
    """Measure the sharpness of the minimum of a trained network.

    Args:
        checkpoint: The trained network, or its path.
        dataset: Its data set, if it is already loaded.
        data_folder: Folder of the images; None: as for ``load_dataset``.
        n_training_images: Number of training images, evenly spaced in the training split (the same
            images for every network of a data set).
        draws: Number of draws of Gaussian noise over which `average_sharpness` is averaged.
        seed: Random seed of those draws: the same relative noise for every network.
        trust: Packages that the checkpoint may import from (see `load_checkpoint`).

    Returns:
        One row, keys ``SHARPNESS_COLUMNS``: losses and rises of the loss [nat],
        ``gradient_norm`` (2-norm over all parameters), ``hessian_eigenvalue`` (largest),
        ``kl_divergence`` [nat] and ``complexity`` (see `pac_bayes`, at noise ``sigma``).

    Raises:
        ValueError: If there are no images or draws.
        FileNotFoundError: If checkpoint or images are missing.

    Example:
        >>> measured = sharpness(network, n_training_images=50, draws=1)
        >>> measured["hessian_eigenvalue"] > 0, measured["n_training_images"]
        (True, 50)
    """
    if n_training_images < 1 or draws < 1:
        raise ValueError(
            "At least one image and one draw are needed; got "
            f"n_training_images={n_training_images} and draws={draws}."
        )
    network = (
        checkpoint if isinstance(checkpoint, Checkpoint) else load_checkpoint(checkpoint, trust)
    )
    dataset = dataset or load_dataset(network.spec.dataset, data_folder)
    network.check_fits(dataset.train)
    n_used = min(n_training_images, len(dataset.train))
    chosen = torch.linspace(0, len(dataset.train) - 1, n_used).long()
    loss = mean_loss(
        network.normalise(dataset.train.images[chosen]),
        dataset.train.labels[chosen],
        network.task,
        batch_size=BATCH,
    )
    model = network.build()
    noise = torch.Generator().manual_seed(seed)
    average = functools.partial(rwp, sigma=SIGMA, scale="layer_max", generator=noise)
    worst = (
        functools.partial(sam, rho=RHO_SAM),
        functools.partial(asam, rho=RHO_ADAPTIVE, dialect="popular"),
        functools.partial(samson, rho=RHO_SAMSON),
    )
    rise = rises(model, loss, [*worst, *[average] * draws])
    matrices = [
        p.detach() for name, p in model.named_parameters() if p.ndim > 1 and is_weight(name)
    ]
    spreads = [torch.full_like(w, SIGMA * float(w.abs().max())) for w in matrices]
    kl, complexity = pac_bayes(matrices, spreads, len(dataset.train))
    spec = network.spec
    values = (
        network.short_digest,
        spec.dataset,
        spec.model,
        spec.method,
        spec.strength,
        spec.seed,
        n_used,
        value(model, loss),
        norm(gradient(model, loss).values()),
        *rise[:3],
        sum(rise[3:]) / draws,
        largest_eigenvalue(model, loss),
        kl,
        complexity,
        RHO_SAM,
        RHO_ADAPTIVE,
        RHO_SAMSON,
        SIGMA,
    )
    return dict(zip(SHARPNESS_COLUMNS, values, strict=True))


def mean_cross_entropy(images: Tensor, labels: Tensor, *, batch_size: int = 500) -> Loss:
    """Mean cross entropy of a network on images, batch by batch.

    Args:
        images: Network inputs, shape (n, C, H, W).
        labels: int64, shape (n,).
        batch_size: Images in a batch.

    Returns:
        The loss [nat].

    Example:
        >>> loss = mean_cross_entropy(images, labels)
        >>> value(model, loss) < math.log(10)  # that of guessing
        True
    """
    return mean_loss(images, labels, "classification", batch_size=batch_size)


def mean_loss(inputs: Tensor, targets: Tensor, task: str, *, batch_size: int = 500) -> Loss:
    """Mean loss of a network on its inputs, batch by batch.

    Args:
        inputs: Network inputs, shape (n, ...).
        targets: As for `losses.task_loss`.
        task: As for `losses.task_loss`.
        batch_size: Inputs in a batch.

    Returns:
        The loss: of classes [nat], of tokens [nat per token], of numbers their squared error.

    Example:
        >>> loss = mean_loss(images, labels, "classification", batch_size=100)
        >>> sum(1 for part in loss(model))  # batches of 359 images
        4
    """
    n_counted = targets.numel() - int((targets == -100).sum()) if task == "tokens" else 0
    n_counted = n_counted or (targets.numel() if task == "regression" else len(targets))

    def parts(model: nn.Module) -> Iterator[Tensor]:
        for batch, truth in zip(
            torch.split(inputs, batch_size), torch.split(targets, batch_size), strict=True
        ):
            yield task_loss(model(batch), truth, task, reduction="sum") / n_counted

    return parts


def value(model: nn.Module, loss: Loss) -> float:
    """The loss, summed in double precision.

    Example:
        >>> perfect = mean_loss(images, model(images).detach(), "regression")
        >>> value(model, perfect)
        0.0
    """
    with torch.no_grad():
        return sum(float(part) for part in loss(model))


def gradient(model: nn.Module, loss: Loss) -> dict[str, Tensor]:
    """The gradient of a loss, {parameter name: gradient}; ``grad`` of parameters is unchanged.

    Example:
        >>> found = gradient(model, mean_cross_entropy(images, labels))
        >>> found["fc3.weight"].shape
        torch.Size([10, 64])
    """
    parameters = _trainable(model)
    total = [torch.zeros_like(p) for p in parameters.values()]
    for part in loss(model):
        found = torch.autograd.grad(part, list(parameters.values()), allow_unused=True)
        for sum_, own in zip(total, found, strict=True):
            if own is not None:
                sum_.add_(own)
    return dict(zip(parameters, total, strict=True))


def norm(tensors: Iterable[Tensor]) -> float:
    """2-norm over all elements of all tensors.

    Example:
        >>> norm([torch.tensor([3.0]), torch.tensor([[4.0]])])
        5.0
    """
    return math.sqrt(sum(float(t.double().square().sum()) for t in tensors))


def rises(model: nn.Module, loss: Loss, rules: Sequence[Rule]) -> list[float]:
    """Rise of the loss when rules offset the weights.

    Args:
        model: The network; weights and gradients are restored afterwards.
        loss: The loss.
        rules: As for `perturbation.perturbed`; they get the gradient of this loss at the current
            weights.

    Returns:
        ``L(w + offset) - L(w)`` for every rule, in order.

    Example:
        >>> from functools import partial
        >>> loss = mean_cross_entropy(images, labels)
        >>> small, large = rises(model, loss, [partial(sam, rho=0.01), partial(sam, rho=0.1)])
        >>> 0 < small < large
        True
    """
    clean = value(model, loss)
    found = []
    with _with_gradients(model, gradient(model, loss)):
        for rule in rules:
            with perturbed(model, rule):
                found.append(value(model, loss) - clean)
    return found


def largest_eigenvalue(model: nn.Module, loss: Loss, *, tolerance: float = 1e-3) -> float:
    """Largest eigenvalue of the Hessian over all trainable parameters, by Lanczos iteration.

    Lanczos iteration needs fewer Hessian-vector products than power iteration, and it finds the
    largest eigenvalue even if the eigenvalue of largest magnitude is negative.

    Args:
        model: The network, with at least two trainable parameters.
        loss: The loss, twice differentiable almost everywhere.
        tolerance: Relative accuracy.

    Returns:
        The eigenvalue, in units of loss / weight^2.

    Raises:
        scipy.sparse.linalg.ArpackNoConvergence: If the iteration does not converge.

    Example:
        >>> layer, inputs = nn.Linear(2, 1, bias=False), torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        >>> loss = mean_loss(inputs, torch.zeros(2, 1), "regression")  # (w1^2 + (2 w2)^2) / 2
        >>> round(largest_eigenvalue(layer, loss), 3)
        4.0
    """
    parameters = list(_trainable(model).values())
    sizes = [p.numel() for p in parameters]

    def product(direction: np.ndarray) -> np.ndarray:
        flat = torch.from_numpy(np.asarray(direction).reshape(-1)).to(parameters[0].dtype)
        vectors = [v.view_as(p) for v, p in zip(torch.split(flat, sizes), parameters, strict=True)]
        total = torch.zeros(sum(sizes), dtype=torch.float64)
        for part in loss(model):
            slopes = torch.autograd.grad(
                part, parameters, create_graph=True, materialize_grads=True
            )
            along = torch.stack([(g * v).sum() for g, v in zip(slopes, vectors, strict=True)])
            found = torch.autograd.grad(along.sum(), parameters, materialize_grads=True)
            total += torch.cat([f.reshape(-1).double() for f in found])
        return total.numpy()

    hessian = LinearOperator((sum(sizes), sum(sizes)), matvec=product, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(sum(sizes))
    found = eigsh(
        hessian,
        k=1,
        which="LA",
        v0=start,
        ncv=min(LANCZOS_VECTORS, sum(sizes)),
        tol=tolerance,
        return_eigenvectors=False,
    )
    return float(found[0])


def pac_bayes(
    weights: Sequence[Tensor],
    spreads: Sequence[Tensor],
    n_training: int,
    confidence: float = CONFIDENCE_OF_BOUND,
) -> tuple[float, float]:
    """The two terms of a PAC-Bayes bound on the expected error of a noisy network.

    Posterior N(w, diag(s^2)), prior N(0, sigma_P^2) with the best one variance,
    ``sigma_P^2 = mean(w^2 + s^2)``; then

        KL = 1/2 sum log(sigma_P^2 / s^2),
        complexity = sqrt((KL + log(n / (1 - confidence))) / (2 (n - 1)))

    (McAllester 1999, COLT, with the Gaussians of Foret et al. 2021, appendix A; equal spreads give
    their k/2 log(1 + ||w||^2 / (k s^2))). The bound is on the expected *error* under the noise,
    which lies in [0, 1]. The small additional term for choosing sigma_P from the weights (a union
    bound) is left out. For networks with more weights than images the bound exceeds 1: use it to
    rank networks, not as a guarantee.

    Args:
        weights: The weights that the noise moves.
        spreads: Standard deviation of the noise of every weight, same shapes, above 0.
        n_training: Number of training images, at least 2.
        confidence: Probability with which the bound holds.

    Returns:
        The Kullback-Leibler divergence [nat] and the complexity.

    Raises:
        ValueError: If a spread is not positive, or there are fewer than two images.

    Example:
        >>> weights, spreads = [torch.ones(10)], [torch.full((10,), 0.1)]
        >>> kl_divergence, complexity = pac_bayes(weights, spreads, n_training=1000)
        >>> round(kl_divergence, 1), round(complexity, 3)
        (23.1, 0.128)
    """
    w = torch.cat([t.reshape(-1).double() for t in weights])
    s = torch.cat([t.reshape(-1).double() for t in spreads])
    if not bool((s > 0).all()) or n_training < 2:
        raise ValueError(
            "A PAC-Bayes bound needs noise on every weight and two training images or more; got a "
            f"smallest spread of {float(s.min())!r} and {n_training} images."
        )
    prior = (w.square() + s.square()).mean()
    kl = float(0.5 * (prior.log() - s.square().log()).sum())
    log_term = math.log(n_training / (1 - confidence))
    return kl, math.sqrt((kl + log_term) / (2 * (n_training - 1)))


def _trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@contextmanager
def _with_gradients(model: nn.Module, gradients: dict[str, Tensor]) -> Iterator[None]:
    parameters = _trainable(model)
    saved = {name: p.grad for name, p in parameters.items()}
    for name, p in parameters.items():
        p.grad = gradients[name]
    try:
        yield
    finally:
        for name, p in parameters.items():
            p.grad = saved[name]


__getattr__ = old_names(__name__, {"cross_entropy": "mean_cross_entropy"})
