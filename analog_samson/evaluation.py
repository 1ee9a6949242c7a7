"""Number of correctly classified images, evaluated in batches of fixed size."""

import contextlib
import functools
import logging
import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

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
    with contextlib.ExitStack() as stack:
        if (default := torch.get_default_dtype()) != torch.float32:
            stack.callback(torch.set_default_dtype, default)
            torch.set_default_dtype(torch.float32)
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.no_grad())
        has_autocast = torch.amp.autocast_mode.is_autocast_available(accelerator.type)
        if has_autocast and torch.is_autocast_enabled(accelerator.type):
            stack.enter_context(torch.autocast(accelerator.type, enabled=False))
        if accelerator.type == "cuda":
            stack.enter_context(
                torch.backends.cudnn.flags(
                    enabled=True, benchmark=False, deterministic=True, allow_tf32=False
                )
            )
        yield


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
        for number in range(-(-n // batch_size)):
            first = number * batch_size
            batch = images[first : first + batch_size]
            if len(batch) < batch_size:
                batch = images[torch.arange(first, first + batch_size).clamp_(max=n - 1)]
            outputs = forward(normalise(batch), first)
            rows, columns = outputs.shape[-2:] if outputs.ndim in (2, 3) else (0, 0)
            if rows != batch_size or columns < n_labels:
                raise ValueError(
                    f"The network's outputs have shape {tuple(outputs.shape)} for a batch of "
                    f"{batch_size} images; labels go up to {n_labels - 1}, so ({batch_size}, "
                    f"{n_labels} or more) is needed."
                )
            waiting.append(outputs)
            if len(waiting) == _BATCHES_PER_ARGMAX or (number + 1) * batch_size >= n:
                best = torch.cat(waiting, dim=-2).max(dim=-1)
                largest.append(best.values)
                predicted.append(best.indices)
                waiting.clear()
    is_nan = torch.cat(largest, dim=-1)[..., :n].isnan()
    if bool(is_nan.any()):
        wrong = int(is_nan.nonzero()[:, -1].min())
        raise ValueError(
            f"An output of the network is NaN for image {wrong}; check its weights and the "
            "normalisation of its inputs."
        )
    return torch.cat(predicted, dim=-1)[..., :n].cpu() == labels.cpu()
