"""Correctly classified images, and scores of samples, evaluated in batches of fixed size."""

import contextlib
import functools
import logging
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from analog_samson.tasks import IGNORED

EVALUATION_BATCH = 64
"""Images in a batch: our choice (``docs/MEASUREMENTS.md``), a multiple of the blocks of 32 in which
aihwkit's tiles run.

Floating-point sums differ in the last bits between batch sizes, so the size is fixed and belongs to
the version of the numerics (``NUMERICS_VERSION``).
"""

_BATCHES_PER_ARGMAX = 32
"""Batches whose outputs are compared with labels in one call, which saves calls per batch."""

Accelerator = Literal["cpu", "cuda"]

BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "avx10", "bf16")
"""Flags of processors with bf16 instructions in /proc/cpuinfo; the last one is for ARM."""

_PROCESSOR = Path("/proc/cpuinfo")

_log = logging.getLogger(__name__)


def find_accelerator(accelerator: str) -> torch.device:
    """Find an accelerator of this machine.

    Args:
        accelerator: "cpu" or "cuda".

    Returns:
        The accelerator as torch names it.

    Raises:
        ValueError: If there is no accelerator of that name, or none on this machine.
    """
    if accelerator not in get_args(Accelerator):
        raise ValueError(f"Unknown accelerator {accelerator!r}; allowed: 'cpu', 'cuda'.")
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise ValueError("accelerator='cuda', and torch finds no CUDA device; use 'cpu'.")
    return torch.device(accelerator)


def has_bf16_instructions() -> bool:
    """Whether this processor has bf16 instructions; True if it is not known."""
    try:
        lines = _PROCESSOR.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return True
    flags = [line.partition(":")[2].split() for line in lines if line[:5] in ("flags", "Featu")]
    return not flags or any(flag.startswith(BF16_INSTRUCTIONS) for flag in flags[0])


def warn_of_slow_bf16(what: str) -> None:
    """Log a warning, once per process, if this processor has no bf16 instructions.

    Args:
        what: The setting that uses bfloat16, such as ``precision="bf16"``.
    """
    if multiprocessing.parent_process() is None and not has_bf16_instructions():
        _warn_once(what)


@functools.cache
def _warn_once(what: str) -> None:
    _log.warning(
        "%s: this processor has no bf16 instructions (%s), so bfloat16 is emulated, about 10 times "
        "slower than fp32. Use fp32 on this machine.",
        what,
        " or ".join(BF16_INSTRUCTIONS[:2]),
    )


@contextlib.contextmanager
def exact_products(accelerator: torch.device) -> Iterator[None]:
    """Compute fp32 products in full precision and deterministically, also under autocast.

    On a GPU torch by default rounds the inputs of convolutions to 10 bits (TF32). Within the block
    the default type of torch is fp32, and inference mode, whose tensors cannot be changed outside
    it, is replaced by no_grad.
    """
    contexts = _contexts(accelerator)
    if not contexts:  # as usual; this is called for every batch
        yield
        return
    with contextlib.ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context)
        yield


def _contexts(accelerator: torch.device) -> list[AbstractContextManager[object]]:
    """What has to be changed for exact products, in order."""
    contexts: list[AbstractContextManager[object]] = []
    if torch.get_default_dtype() != torch.float32:
        contexts.append(_default_fp32())
    if torch.is_inference_mode_enabled():
        contexts += [torch.inference_mode(False), torch.no_grad()]
    where = accelerator.type
    if torch.amp.autocast_mode.is_autocast_available(where) and torch.is_autocast_enabled(where):
        contexts.append(torch.autocast(where, enabled=False))
    if where == "cuda":
        exact = {"enabled": True, "benchmark": False, "deterministic": True, "allow_tf32": False}
        contexts.append(torch.backends.cudnn.flags(**exact))
    return contexts


@contextlib.contextmanager
def _default_fp32() -> Iterator[None]:
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(default)


def count_correct(
    forward: Callable[[Tensor, int], Tensor],
    images: Tensor,
    labels: Tensor,
    normalise: Callable[[Tensor], Tensor],
    *,
    batch_size: int = EVALUATION_BATCH,
) -> int:
    """Count the correctly classified images; arguments and errors as for :func:`is_correct`."""
    return int(is_correct(forward, images, labels, normalise, batch_size=batch_size).sum())


def is_correct(
    forward: Callable[[Tensor, int], Tensor],
    images: Tensor,
    labels: Tensor,
    normalise: Callable[[Tensor], Tensor],
    *,
    batch_size: int = EVALUATION_BATCH,
) -> Tensor:
    """Whether each image is classified correctly: its largest output is that of its label.

    Args:
        forward: Called as `forward(batch, first_index)` without gradients, with normalised images
            of shape (batch_size, C, H, W) and the index of the first of them in `images`. Returns
            outputs of shape (batch_size, classes), or (chips, batch_size, classes). A module must
            be in evaluation mode.
        images: Input of `normalise`, shape (n, C, H, W).
        labels: int64, shape (n,).
        normalise: Converts images (usually uint8) to network inputs.
        batch_size: Images in every batch. The last batch is filled up with copies of its last
            image, which are not counted.

    Returns:
        bool, shape (n,) or (chips, n), on the CPU. If several outputs are largest, the first one
        is taken.

    Raises:
        ValueError: If there are no images, not as many labels, a label without an output, or an
            output that is NaN.
    """
    n = len(images)
    if n == 0 or len(labels) != n or batch_size < 1:
        raise ValueError(
            f"Evaluation needs at least one image, as many labels and a batch of at least 1; got "
            f"{n} images, {len(labels)} labels and batch_size={batch_size}."
        )
    if labels.ndim != 1 or labels.is_floating_point():
        raise ValueError(
            f"Accuracy counts samples of one class each; the targets are {labels.dtype} of shape "
            f"{tuple(labels.shape)}: choose another score."
        )
    n_labels = int(labels.max()) + 1
    predicted, largest, waiting = [], [], []
    with torch.no_grad():
        for first, outputs in _outputs(forward, images, normalise, batch_size):
            rows, columns = outputs.shape[-2:] if outputs.ndim in (2, 3) else (0, 0)
            if rows != batch_size or columns < n_labels:
                raise ValueError(
                    f"The network's outputs have shape {tuple(outputs.shape)} for a batch of "
                    f"{batch_size} images; labels go up to {n_labels - 1}, so ({batch_size}, "
                    f"{n_labels} or more) is needed."
                )
            waiting.append(outputs)
            if len(waiting) == _BATCHES_PER_ARGMAX or first + batch_size >= n:
                best = _joined(waiting, dim=-2).max(dim=-1)
                largest.append(best.values)
                predicted.append(best.indices)
                waiting.clear()
    is_nan = _joined(largest, dim=-1)[..., :n].isnan()
    if bool(is_nan.any()):
        wrong = int(is_nan.nonzero()[:, -1].min())
        raise ValueError(
            f"An output of the network is NaN for image {wrong}; check its weights and the "
            "normalisation of its inputs."
        )
    return _joined(predicted, dim=-1)[..., :n].cpu() == labels.cpu()


def _joined(parts: list[Tensor], dim: int) -> Tensor:
    """As ``torch.cat``; a single part is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=dim)


def score_by_sample(
    function: Callable[[Tensor, Tensor], Tensor],
    forward: Callable[[Tensor, int], Tensor],
    samples: Tensor,
    targets: Tensor,
    normalise: Callable[[Tensor], Tensor],
    *,
    name: str,
    n_chips: int | None = None,
    batch_size: int = EVALUATION_BATCH,
) -> Tensor:
    """A score of each sample.

    Args:
        function: Called as `function(outputs, targets)`, shapes (n, ...), on the accelerator of the
            outputs; returns a finite number a sample, shape (n,).
        forward: As for :func:`is_correct`.
        samples: Input of `normalise`, shape (n, ...).
        targets: What `function` compares outputs with, shape (n, ...).
        normalise: As for :func:`is_correct`.
        name: Name of the score, for messages.
        n_chips: Chips in the outputs, shape (chips, batch_size, ...); None: (batch_size, ...).
        batch_size: As for :func:`is_correct`.

    Returns:
        float64, shape (n,) or (chips, n), on the CPU.

    Raises:
        ValueError: If there are no samples, not as many targets, outputs of another number of
            samples, or the function raises or does not return a finite number a sample.
    """
    n = len(samples)
    if n == 0 or len(targets) != n or batch_size < 1:
        raise ValueError(
            f"Evaluation needs at least one sample, as many targets and a batch of at least 1; got "
            f"{n} samples, {len(targets)} targets and batch_size={batch_size}."
        )
    size = (batch_size,) if n_chips is None else (n_chips, batch_size)
    found = []
    with torch.no_grad():
        for first, outputs in _outputs(forward, samples, normalise, batch_size):
            if outputs.shape[: len(size)] != size:
                raise ValueError(
                    f"The network's outputs have shape {tuple(outputs.shape)} for a batch of "
                    f"{batch_size} samples; {size} must come first."
                )
            wanted = targets[first : first + batch_size].to(outputs.device)
            chips = outputs.unsqueeze(0) if n_chips is None else outputs
            found.append(
                torch.stack(
                    [_scored(function, one[: len(wanted)], wanted, first, name) for one in chips]
                )
            )
    values = torch.cat(found, dim=-1)
    return values[0] if n_chips is None else values


def _scored(
    function: Callable[[Tensor, Tensor], Tensor],
    outputs: Tensor,
    targets: Tensor,
    first: int,
    name: str,
) -> Tensor:
    """Values of some samples, float64 on the CPU; `first` is the position of the first one."""
    shapes = f"outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)}"
    try:
        values = function(outputs.clone(), targets.clone())  # it may work in place
    except Exception as error:  # a function of the user may raise anything
        raise ValueError(
            f"The score {name!r} raised {type(error).__name__} for {shapes}: "
            f"{str(error).rstrip('.')}; mend the function, or choose a score that fits."
        ) from error
    shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
    if shape != (len(targets),):
        raise ValueError(
            f"The score {name!r} returned {shape} for {shapes}; a tensor of shape "
            f"({len(targets)},), a number a sample, is needed."
        )
    if values.is_complex():
        raise ValueError(f"The score {name!r} returned complex numbers; real ones are needed.")
    values = values.double().cpu()
    if not bool(values.isfinite().all()):
        at = int((~values.isfinite()).nonzero()[0])
        raise ValueError(
            f"The score {name!r} is {float(values[at])} for sample {first + at}; it must be "
            "finite: check the network's outputs and the function."
        )
    return values


def _outputs(
    forward: Callable[[Tensor, int], Tensor],
    samples: Tensor,
    normalise: Callable[[Tensor], Tensor],
    batch_size: int,
) -> Iterator[tuple[int, Tensor]]:
    """Position of the first sample of each batch, and the outputs of the batch."""
    n = len(samples)
    for first in range(0, n, batch_size):
        batch = samples[first : first + batch_size]
        if len(batch) < batch_size:
            batch = samples[torch.arange(first, first + batch_size).clamp_(max=n - 1)]
        yield first, forward(normalise(batch), first)


# scores of a sample: outputs (n, ...), targets (n, ...) -> (n,)


def top5(outputs: Tensor, targets: Tensor) -> Tensor:
    """Whether the label is among the five largest outputs, shapes (n, classes) and (n,)."""
    return (outputs.topk(5, dim=-1).indices == targets.unsqueeze(-1)).any(-1)


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy [nat], of a sequence the mean over its tokens.

    Args:
        outputs: Shape (n, classes) or (n, length, classes).
        targets: Shape (n,) or (n, length); `IGNORED` tokens are left out.
    """
    logs = outputs.double().log_softmax(-1)
    is_scored = targets != IGNORED
    picked = logs.gather(-1, targets.where(is_scored, 0).unsqueeze(-1)).squeeze(-1)
    return _mean_of_sequence(-picked, is_scored)


def token_accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Share of correct tokens of a sequence, shapes (n, length, classes) and (n, length)."""
    return _mean_of_sequence((outputs.argmax(-1) == targets).double(), targets != IGNORED)


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Squared error, mean over the outputs of a sample; both of shape (n, ...)."""
    if outputs.numel() != targets.numel():
        raise ValueError("there must be as many outputs as targets")
    n = len(targets)
    errors = outputs.reshape(n, -1).double() - targets.reshape(n, -1).double()
    return errors.square().mean(-1)


def _mean_of_sequence(values: Tensor, is_scored: Tensor) -> Tensor:
    """Mean over the scored tokens, NaN without any; plain values of shape (n,) stay."""
    if values.ndim == 1:
        return values
    return values.where(is_scored, 0.0).sum(-1) / is_scored.sum(-1)
