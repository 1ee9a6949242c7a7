"""Control parameters of a trained network, in a file beside its checkpoint.

A checkpoint holds weights. Where they are functions of control parameters (the option
`parametrisation` of a specification), several control parameters give one weight, and a device that
drifts distinguishes them; so `train` writes them, too: `<checkpoint>.control`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

from torch import Tensor, nn
from torch.nn.utils import parametrize

from analog_samson.checkpoint import load_checkpoint, read_tensors, write_tensors

CONTROL = ".control"
"""Ending of the files of control parameters."""


def parametrised(model: nn.Module) -> Iterator[tuple[nn.Module, str, str]]:
    """Parametrised tensors of a network: the module, the tensor's name in it, and its full name.

    Example:
        >>> layer = nn.Sequential(nn.Linear(2, 1))
        >>> _ = parametrize.register_parametrization(layer[0], "weight", nn.Tanh(), unsafe=True)
        >>> [name for *_, name in parametrised(layer)]
        ['0.weight']
    """
    for name, module in model.named_modules():
        if parametrize.is_parametrized(module):
            for key in cast(nn.ModuleDict, module.parametrizations):
                yield module, key, f"{name}.{key}" if name else key


def control_of(model: nn.Module) -> dict[str, Tensor]:
    """Control parameters of a network that is being trained, by the name of their weight."""
    found = {}
    for module, key, name in parametrised(model):
        own = cast(
            parametrize.ParametrizationList, cast(nn.ModuleDict, module.parametrizations)[key]
        )
        found[name] = own.original.detach().cpu()
    return found


def write_control(checkpoint: Path, control: Mapping[str, Tensor], digest: str) -> Path:
    """Write control parameters beside a checkpoint with this digest."""
    return write_tensors(checkpoint.with_suffix(CONTROL), control, {"checkpoint": digest})


def control_parameters(checkpoint: str | Path, trust: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """Read the control parameters that a network was trained with.

    Args:
        checkpoint: Path of the checkpoint.
        trust: As for `load_checkpoint`.

    Returns:
        Control parameters by the name of their weight, such as "fc1.weight", in the units of the
        parametrisation (see `perturbation.MicroRing`).

    Raises:
        FileNotFoundError: If there is no such checkpoint, or none were written beside it.
        ValueError: If they belong to another network.

    Example:
        >>> spec = TrainingSpec(dataset="digits", parametrisation="microring", epochs=1)
        >>> control_parameters(train(spec, "rings"))["fc1.weight"].shape
        torch.Size([64, 64])
    """
    path = Path(checkpoint)
    network = load_checkpoint(path, trust)
    beside = path.with_suffix(CONTROL)
    if not beside.is_file():
        raise FileNotFoundError(
            f"There are no control parameters {str(beside)!r}: the network was trained with "
            f"parametrisation={network.spec.parametrisation!r}, or its file was left behind; "
            "copy it beside the checkpoint, or train the network again."
        )
    control, header = read_tensors(beside, "file of control parameters")
    if header.get("checkpoint") != network.digest:
        raise ValueError(
            f"The control parameters {str(beside)!r} belong to another network than "
            f"{str(path)!r}; copy both files of one training, or train it again."
        )
    return control
