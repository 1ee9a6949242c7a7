"""Build a network by name: one of this package, or any that can be imported."""

import difflib
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from analog_samson.importing import import_callable, is_import_name
from analog_samson.models.calibration import evaluating
from analog_samson.models.networks import MODELS
from analog_samson.models.selecting import one_tensor


def build_model(
    name: str,
    *,
    image_shape: Sequence[int],
    n_classes: int,
    seed: int | None = None,
    options: Mapping[str, Any] = MappingProxyType({}),
    **kwargs: Any,
) -> nn.Module:
    """Build a network, freshly initialised.

    Args:
        name: A key of `MODELS`, or `package.module:function` for anything importable.
        image_shape: Shape of one input; channels, height and width of an image.
        n_classes: Number of outputs.
        seed: Seed of the initial weights; torch's global random state is restored. None draws from
            the global random state.
        options: Options of the model, by name. An imported function gets these, and the image shape
            and the number of classes if it has arguments `image_shape` and `n_classes` without
            defaults.
        **kwargs: More options, if their names differ from the arguments above.

    Returns:
        The network, in training mode.

    Raises:
        ValueError: If there is no such model, it does not take these options or this image shape,
            or the imported function raises or does not return an `nn.Module`.

    Example:
        >>> build_model("mlp", image_shape=(1, 8, 8), n_classes=10, seed=0, hidden=(32,))
        Sequential(
          (flatten): Flatten(start_dim=1, end_dim=-1)
          (fc1): Linear(in_features=64, out_features=32, bias=True)
          (relu1): ReLU()
          (fc2): Linear(in_features=32, out_features=10, bias=True)
        )
    """
    options = {**options, **kwargs}
    if is_import_name(name):
        factory = import_callable(name, "model")
        if inspect.isclass(factory) and not issubclass(factory, nn.Module):
            raise ValueError(
                f"The model {name!r} is a class and not an nn.Module; name a network's class, or a "
                "function that builds and returns the network."
            )
        facts = {"image_shape": tuple(image_shape), "n_classes": n_classes}
        arguments = {key: facts[key] for key in facts if key in _needed(factory)} | options
    elif name in MODELS:
        factory = MODELS[name]
        arguments = {"image_shape": tuple(image_shape), "n_classes": n_classes, **options}
    else:
        close = difflib.get_close_matches(name, MODELS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"No model {name!r}; there are {', '.join(MODELS)}, and 'package.module:function' for "
            f"your own.{hint}"
        )
    try:
        inspect.signature(factory).bind(**arguments)
    except TypeError as error:
        only = "; an imported model gets its options (model_kwargs) alone"
        raise ValueError(
            f"The model {name!r} does not take these options ({error}); it takes "
            f"{inspect.signature(factory)}{only if is_import_name(name) else ''}."
        ) from error
    except ValueError:  # a callable without a signature, such as a builtin
        pass
    with torch.random.fork_rng(enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        try:
            model = factory(**arguments)
        except Exception as error:  # a function of the user, and torch's layers, may raise anything
            said = str(error).rstrip(".")
            raise ValueError(
                f"The model {name!r} cannot be built for inputs of shape {tuple(image_shape)} with "
                f"{n_classes} classes ({type(error).__name__}: {said}); give a model or "
                f"model_kwargs for them.{_shape_hint(image_shape)}"
            ) from error
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"{name!r} returned {type(model).__name__}, not an nn.Module; name a function that "
            "builds and returns the network."
        )
    if others := other_types(model):
        warnings.warn(
            f"The model {name!r} is of {others} and converted to float32, in which networks are "
            "trained and chips compute.",
            stacklevel=2,
        )
        model = model.float()
    return model


def _needed(factory: Callable[..., Any]) -> set[str]:
    """Names of the arguments without defaults."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except ValueError:  # a callable without a signature, such as a builtin
        return set()
    kinds = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    return {p.name for p in parameters if p.default is p.empty and p.kind in kinds}


def other_types(model: nn.Module) -> str:
    """The types of a network's real numbers other than float32, for messages; "" if none.

    Example:
        >>> other_types(nn.Linear(2, 1)), other_types(nn.Linear(2, 1).double())
        ('', 'float64')
    """
    tensors = [*model.parameters(), *model.buffers()]
    others = {t.dtype for t in tensors if t.is_floating_point()} - {torch.float32}
    return ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in others))


@torch.no_grad()
def _shape_hint(image_shape: Sequence[int]) -> str:
    if len(image_shape) == 3:
        return ""
    return " Networks for images take (channels, height, width): save images as uint8."


def check_outputs(
    model: nn.Module,
    image: Tensor,
    n_classes: int,
    *,
    name: str,
    positions: tuple[int, ...] = (),
    is_exact: bool = False,
) -> None:
    """Raise unless a network gives one number a class.

    Args:
        model: The network; left as it was (modes, buffers), as are torch's generators.
        image: One input as it takes it, shape (1, ...).
        n_classes: Classes of the data set.
        name: Name of the network, for messages.
        positions: (length,) where a token a position is predicted; otherwise empty.
        is_exact: Whether more outputs are refused, too, as for numbers that are predicted.

    Raises:
        ValueError: If it does not run on the image, or has fewer outputs than there are classes.

    Example:
        >>> check_outputs(model, images[:1], 10, name="mine")
        >>> check_outputs(model, images[:1], 11, name="mine")
        Traceback (most recent call last):
            ...
        ValueError: The model 'mine' gives (1, 10) for one input of shape (1, 8, 8); ...
    """
    shape = tuple(image.shape[1:])
    what, ways = "inputs", "a model, model_kwargs, inputs or output"
    if not image.is_floating_point():
        what, ways = f"whole numbers (tokens) up to {int(image.max())},", f"floats, {ways}"
    with torch.random.fork_rng([]), evaluating(model):
        try:
            outputs = model(image.to(next(model.parameters()).device))
        except Exception as error:  # whatever the network's own code raises
            raise ValueError(
                f"The model {name!r} does not run on {what} of shape {shape} "
                f"({type(error).__name__}: {str(error).rstrip('.')}); give {ways} for them."
            ) from error
    one_tensor(outputs)
    found, wanted = tuple(outputs.shape), (1, *positions, n_classes)
    if found[:-1] != wanted[:-1] or found[-1] < n_classes or (is_exact and found != wanted):
        targets = "numbers" if is_exact else "classes"
        raise ValueError(
            f"The model {name!r} gives {found} for one input of shape {shape}; {n_classes} "
            f"{targets} need a tensor of shape {wanted}: give a model or model_kwargs for them."
        )
