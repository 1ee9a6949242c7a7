"""The engines that run the forward pass of a chip."""

from typing import Literal, get_args

import torch

from analog_samson.analog import why_not_on_tiles
from analog_samson.compiled import Precision, why_not
from analog_samson.devices import Device
from analog_samson.evaluation import Accelerator, warn_of_slow_bf16

Engine = Literal["aihwkit", "compiled"]


def choose_engine(device: Device, engine: Engine | None = None) -> Engine:
    """Choose the engine for the chips of a device.

    Args:
        device: The device.
        engine: The engine to use; None chooses "compiled" if it supports the device, else
            "aihwkit".

    Returns:
        "compiled", or "aihwkit" (aihwkit's tiles, the reference).

    Raises:
        ValueError: If there is no such engine, the one asked for does not support the device, or
            none does.

    Example:
        >>> from analog_samson import load_device
        >>> device = load_device("pcm_like")
        >>> choose_engine(device), choose_engine(device, "aihwkit")
        ('compiled', 'aihwkit')
    """
    if engine is not None and engine not in get_args(Engine):
        raise ValueError(
            f"Unknown engine {engine!r}; allowed: 'aihwkit', 'compiled', or None to choose."
        )
    reason, of_tiles = why_not(device), why_not_on_tiles(device)
    if reason and of_tiles:
        raise ValueError(
            f"No engine can run device {device.name!r}: not the compiled one ({reason}), and not "
            f"aihwkit's tiles ({of_tiles}); change its periphery."
        )
    if engine == "compiled" and reason:
        raise ValueError(
            f"The compiled engine cannot run device {device.name!r}: {reason}; use engine="
            "'aihwkit', or None to choose."
        )
    if engine == "aihwkit" and of_tiles:
        raise ValueError(
            f"aihwkit's tiles cannot run device {device.name!r}: {of_tiles}; use engine="
            "'compiled', or None to choose."
        )
    return engine or ("aihwkit" if reason else "compiled")


def check_precision(
    engine: Engine, precision: str, device: Device, accelerator: Accelerator | None = None
) -> None:
    """Check that an engine supports a precision for a device; warn where it is slow.

    Args:
        engine: The engine.
        precision: Precision of its products.
        device: The device.
        accelerator: The accelerator; None: CUDA if available, else the CPU.

    Raises:
        ValueError: If the engine does not support the precision.

    Example:
        >>> from analog_samson import load_device
        >>> check_precision("aihwkit", "bf16", load_device("pcm_like"))
        Traceback (most recent call last):
            ...
        ValueError: The aihwkit engine has no precision 'bf16'; allowed: fp32.
    """
    allowed = get_args(Precision) if engine == "compiled" else ("fp32",)
    if precision not in allowed:
        raise ValueError(
            f"The {engine} engine has no precision {precision!r}; allowed: {', '.join(allowed)}."
        )
    if precision != "fp32" and device.periphery.is_per_vector:
        raise ValueError(
            f"The periphery of device {device.name!r} depends on every input vector (IR drop, read "
            "noise of products, ranges or bounds of vectors), which is computed in fp32 only; got "
            f"precision {precision!r}."
        )
    if accelerator is None:
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    if precision == "bf16" and accelerator == "cpu":
        warn_of_slow_bf16('precision="bf16"')
