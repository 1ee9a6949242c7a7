"""How the strength of a perturbation grows over a training."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType


def _linear(progress: float, relative_loss: float) -> float:
    return progress


def _quadratic(progress: float, relative_loss: float) -> float:
    return progress**2


def _cosine(progress: float, relative_loss: float) -> float:
    return (1 - math.cos(math.pi * progress)) / 2


def _step(progress: float, relative_loss: float) -> float:
    return min(1 + math.floor(3 * progress), 3) / 3


def _adaptive(progress: float, relative_loss: float) -> float:
    return min(max(1 - relative_loss, 0.0), 1.0)


def _constant(progress: float, relative_loss: float) -> float:
    return 1.0


SCHEDULES: Mapping[str, Callable[[float, float], float]] = MappingProxyType(
    {
        "constant": _constant,
        "linear": _linear,
        "quadratic": _quadratic,
        "cosine": _cosine,
        "step": _step,
        "adaptive": _adaptive,
    }
)


def strength_factor(schedule: str, progress: float, *, relative_loss: float = 1.0) -> float:
    """Factor of the strength (rho or sigma) at a point of the training.

    constant 1; linear t; quadratic t^2; cosine (1 - cos(pi t)) / 2; step 1/3, 2/3, 1 in thirds of
    the training; adaptive 1 - relative loss. Strong perturbations early in training make the update
    gradient vanish ("Incorruptible Neural Networks", arXiv 2602.07320, whose tables use a quadratic
    ramp); the ramps' exact forms, and `adaptive`, are our choice. `adaptive` is stable: a
    perturbation that is too strong keeps the loss high, which makes the factor small.

    Args:
        schedule: A name from `SCHEDULES`.
        progress: Completed share of the training, t in [0, 1].
        relative_loss: Loss of the previous epoch / ln(number of classes), the loss of guessing.

    Returns:
        The factor, in [0, 1].

    Raises:
        ValueError: If the schedule is unknown or the progress out of range.

    Example:
        >>> strength_factor("quadratic", 0.5), strength_factor("constant", 0.5)
        (0.25, 1.0)
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"Unknown schedule {schedule!r}; allowed: {', '.join(SCHEDULES)}.")
    if not 0 <= progress <= 1:
        raise ValueError(f"Progress must lie in [0, 1]; got {progress!r}.")
    return SCHEDULES[schedule](progress, relative_loss)
