"""Which images a network gets right, and how many, in batches of one fixed size."""

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
"""Images in a batch: a multiple of the blocks of 32 that the tiles run.

Our choice: ResNet-20 is a sixth faster than with 128, because its activations stay in the caches,
LeNet-5 as fast, and ResNet-18 needs less memory.

Floating point sums differ in the last bits between batch sizes, so the size is fixed and part of
what a result means (`numerics_version`).
"""

_LOOKED_AT_TOGETHER = 32
"""Batches whose outputs wait for one look: a look at each takes as long as the rest of the loop."""

Accelerator = Literal["cpu", "cuda"]

BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "avx10", "bf16")
"""How Linux names them among a processor's flags, the last on ARM."""

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
        raise ValueError("accelerator='cuda' was asked and torch finds none; use 'cpu'.")
    return torch.device(accelerator)


def has_bf16_instructions() -> bool:
    """Whether this processor multiplies bfloat16 numbers; true where that is not known."""
    try:
        lines = _PROCESSOR.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return True
    flags = [line.partition(":")[2].split() for line in lines if line[:5] in ("flags", "Featu")]
    return not flags or any(flag.startswith(BF16_INSTRUCTIONS) for flag in flags[0])


def warn_of_slow_bf16(what: str) -> None:
    """Say, once a run, that bfloat16 is slow here; say nothing where it is not.

    Args:
        what: What asks for it, such as ``precision="bf16"``.
    """
    if multiprocessing.parent_process() is None and not has_bf16_instructions():
        _warn_once(what)


@functools.cache
def _warn_once(what: str) -> None:
    _log.warning(
        "%s: this processor has no bf16 instructions (%s), so bfloat16 is emulated, which was 10 "
        "times slower than fp32 on an AVX2 machine (ResNet-20: 126 s instead of 12.5 s a chip and "
        "time). Use fp32 here.",
        what,
        " or ".join(BF16_INSTRUCTIONS[:2]),
    )


@contextlib.contextmanager
def exact_products(accelerator: torch.device) -> Iterator[None]:
    """Let fp32 products keep all their bits, autocast or not, and give the same bits every time.

    On a GPU torch's own choice rounds the factors of convolutions to 10 bits (TF32).
    """
    with contextlib.ExitStack() as stack:
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
    """Count the images whose largest output is that of their label: see :func:`is_correct`."""
    return int(is_correct(forward, images, labels, normalise, batch_size=batch_size).sum())


def is_correct(
    forward: Callable[[Tensor, int], Tensor],
    images: Tensor,
    labels: Tensor,
    normalise: Callable[[Tensor], Tensor],
    *,
    batch_size: int = EVALUATION_BATCH,
) -> Tensor:
    """Whether the largest output is that of the label, image by image.

    Args:
        forward: Called as `forward(batch, first_index)` without gradients, with normalised images
            of shape (batch_size, C, H, W) and the position of the first of them in `images`;
            returns outputs of shape (batch_size, classes), or (chips, batch_size, classes). A
            module must be in eval mode already.
        images: What `normalise` takes, shape (n, C, H, W).
        labels: int64, shape (n,).
        normalise: Turns images (uint8, most often) into network inputs.
        batch_size: Images in every batch: the last one is filled up with copies of its last image,
            which are not counted.

    Returns:
        bool, shape (n,) or (chips, n), on the CPU. Of equal largest outputs the first counts.

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
    n_labels = int(labels.max()) + 1
    answers, largest, waiting = [], [], []
    with torch.no_grad():
        for number, batch in enumerate(torch.split(images, batch_size)):
            if (missing := batch_size - len(batch)) > 0:
                batch = torch.cat([batch, batch[-1:].expand(missing, *batch.shape[1:])])
            outputs = forward(normalise(batch), number * batch_size)
            rows, columns = outputs.shape[-2:] if outputs.ndim in (2, 3) else (0, 0)
            if rows != batch_size or columns < n_labels:
                raise ValueError(
                    f"The network's outputs have shape {tuple(outputs.shape)} for a batch of "
                    f"{batch_size} images; labels go up to {n_labels - 1}, so ({batch_size}, "
                    f"{n_labels} or more) is needed."
                )
            waiting.append(outputs)
            if len(waiting) == _LOOKED_AT_TOGETHER or (number + 1) * batch_size >= n:
                best = torch.cat(waiting, dim=-2).max(dim=-1)
                largest.append(best.values)
                answers.append(best.indices)
                waiting.clear()
    is_nan = torch.cat(largest, dim=-1)[..., :n].isnan()
    if bool(is_nan.any()):
        wrong = int(is_nan.nonzero()[:, -1].min())
        raise ValueError(
            f"The network answers NaN to image {wrong}; check its weights and the normalisation of "
            "its inputs."
        )
    return torch.cat(answers, dim=-1)[..., :n].cpu() == labels.cpu()
