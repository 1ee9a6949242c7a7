"""How accurate is a network that was trained elsewhere on analog memory?

    python experiments/import_checkpoint.py --factory my_package.nets:resnet20 \
        --kwargs '{"num_classes": 10}' --state resnet20.pth --dataset cifar10 \
        --mean 0.4914 0.4822 0.4465 --std 0.2470 0.2435 0.2616 --out resnet20.safetensors
    python experiments/import_checkpoint.py --factory my_package.nets:lenet --dataset mnist \
        --aihwkit lenet.pth --trust aihwkit --out lenet.safetensors

Writes a checkpoint that every study accepts (method "external"); about a minute for 10,000 images.
"""

import json
import pickle
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from analog_samson.analog import device_from, load_into, read_file
from analog_samson.checkpoint import (
    Checkpoint,
    TrainingSpec,
    load_state,
    named_packages,
    save_checkpoint,
)
from analog_samson.commands import run_command
from analog_samson.data import load_dataset, path_in
from analog_samson.models import analog_layers, analog_share, audit, build_model
from analog_samson.training import checkpoint_from, checkpoint_of


def main(
    factory: str,
    out: Path,
    state: Path | None = None,
    aihwkit: Path | None = None,
    kwargs: str = "{}",
    dataset: str = "digits",
    data_folder: Path | None = None,
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
    keep_digital: tuple[str, ...] = (),
    rewrites: tuple[str, ...] = (),
    augmentation: Literal["none", "crop", "crop_flip"] = "none",
    output: int | str | None = None,
    inputs: str = "{}",
    seed: int = 0,
    own_arrays: bool = True,
    trust: tuple[str, ...] = (),
) -> None:
    """Import a trained network: load its weights, evaluate it digitally, write a checkpoint.

    Args:
        factory: "package.module:function" that builds the network, or a model name of this
            package (resnet20).
        out: Checkpoint to write (.safetensors).
        state: File of its state dict: .pth / .pt (tensors only, no other pickled objects) or
            .safetensors.
        aihwkit: Instead: file of the state dict of a network that aihwkit converted, or of the
            network itself; needs `--trust aihwkit`. Its configuration is written beside OUT as a
            device file.
        kwargs: Keyword arguments of the factory, as a JSON object.
        dataset: Data set that it was trained for: a name, the path of your own data (see
            docs/DATA.md), or package.module:function.
        data_folder: Folder that holds the images.
        mean: Mean of each channel that it was trained with, in [0, 1]; by default that of the
            training images.
        std: Standard deviation of each channel, likewise.
        keep_digital: Layers that are kept digital; `*` matches any text.
        rewrites: Rules of your own, package.module:name, that rewrite layers of other kinds into
            layers that can be mapped.
        augmentation: Augmentation of its training images, also used to recalibrate batch
            normalisation on chips.
        output: Which output of the network counts where it gives several: an index, or a name.
        inputs: Shapes of the inputs of a network of several, by argument, as a JSON object:
            '{"image": "3x32x32", "speed": "5"}'.
        seed: Training seed, which distinguishes several trainings of one network.
        own_arrays: Whether chips of a network of aihwkit have the scales and input ranges of its
            tiles; otherwise devices choose them.
        trust: "aihwkit", if the author of the file of `--aihwkit` is trusted: reading it runs any
            code that it holds.
    """
    options = _json_object(kwargs, "--kwargs")
    if bool(mean) != bool(std):
        raise ValueError(f"--mean and --std belong together; got mean={mean}, std={std}.")
    if (state is None) == (aihwkit is None):
        raise ValueError("Give one file: --state (digital network) or --aihwkit (converted).")
    chosen = {
        "augmentation": augmentation,
        "output": output,
        "inputs": _json_object(inputs, "--inputs"),
        "seed": seed,
        "rewrites": rewrites,
    }
    file = state or aihwkit
    weights = _read_state(state) if state else read_file(file, trust)
    images = load_dataset(path_in(dataset, data_folder), data_folder)
    images = replace(images, mean=mean or images.mean, std=std or images.std)
    model = build_model(
        factory, image_shape=images.image_shape, n_classes=images.n_classes, seed=0, options=options
    )
    if aihwkit is not None:
        checkpoint = _of_aihwkit(
            weights,
            model,
            aihwkit,
            out,
            factory=factory,
            options=options,
            dataset=images,
            keep_digital=keep_digital,
            own_arrays=own_arrays,
            **chosen,
        )
    else:
        for name, own in model.state_dict().items():
            if name.endswith("num_batches_tracked"):  # missing in older files, and not used here
                weights.setdefault(name, own)
        load_state(model, weights, what=f"file {str(file)!r}", name=factory)
        spec = TrainingSpec(
            dataset=images.name,
            model=factory,
            model_kwargs=options,
            method="external",
            epochs=0,
            keep_digital=keep_digital,
            **chosen,
        )
        made_with = {"imported_from": file.name, "torch": torch.__version__}
        checkpoint = checkpoint_of(model, spec, images, made_with)
    save_checkpoint(out, checkpoint)
    network, keep_digital = checkpoint.build(), checkpoint.keep_digital
    n_layers = len(analog_layers(network, keep_digital))
    n_correct = checkpoint.n_correct_digital
    for entry in audit(network, keep_digital):
        if entry.n_weights and not entry.analog:
            print(
                f"digital: {entry.name} ({entry.kind}, {entry.n_weights} weights): {entry.reason}"
            )
    correct = f"{n_correct} of {len(images.test)} test images correct " + (
        f"({100 * checkpoint.accuracy_digital:.2f} %)"
    )
    print(
        f"{out}: {correct if images.task == 'classification' else images.task}, {n_layers} "
        f"analog layers with {100 * analog_share(network, keep_digital):.1f} % of the weights"
    )
    if packages := named_packages(checkpoint.spec):
        print(
            "It names code of other packages: commands that open it need "
            f"--trust {' '.join(packages)}"
        )


def _of_aihwkit(given: Any, model: nn.Module, file: Path, out: Path, **how: Any) -> Checkpoint:
    """The checkpoint of a network of aihwkit; its configuration is written as a device file."""
    if not isinstance(given, nn.Module):
        given = load_into(model, _state_in(given, file), f"File {str(file)!r}")
    path = out.with_suffix(".toml")
    device_from(given, name=out.stem, path=path)
    print(f"{path}: device of its configuration")
    return checkpoint_from(given, imported_from=file.name, **how)


def _json_object(text: str, option: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{option} must be a JSON object; got {text!r} ({error}).") from error
    if not isinstance(found, dict):
        raise ValueError(
            f"{option} must be a JSON object such as '{{\"width\": 16}}'; got {text!r}."
        )
    return found


def _read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict, also from inside a training checkpoint or a wrapped module."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}; give the state dict to import.")
    try:
        if path.suffix == ".safetensors":
            found: Any = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (
        SafetensorError,
        pickle.UnpicklingError,
        RuntimeError,
        ValueError,
        KeyError,
        EOFError,
    ) as error:
        raise ValueError(
            f"{str(path)!r} is not a state dict of tensors ({str(error).split(chr(10))[0]}); "
            "write it with torch.save(model.state_dict(), path)."
        ) from error
    found = _state_in(found, path)
    if not all(isinstance(value, Tensor) for value in found.values()):
        raise ValueError(
            f"{str(path)!r} holds more than names and tensors; write it with "
            "torch.save(model.state_dict(), path), or give a file of aihwkit as --aihwkit."
        )
    return found


def _state_in(found: Any, path: Path) -> dict[str, Any]:
    """The state dict in a file, also from inside a training checkpoint or a wrapped module."""
    for key in ("state_dict", "model_state_dict", "model", "net"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
        raise ValueError(
            f"{str(path)!r} holds {type(found).__name__}, not a state dict (names and tensors); "
            "write it with torch.save(model.state_dict(), path)."
        )
    weights = dict(found)
    for prefix in ("module.", "_orig_mod."):
        if weights and all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights


if __name__ == "__main__":
    run_command(main)
