"""How accurate is a network that was trained elsewhere on analog memory?

    python experiments/import_checkpoint.py --factory my_package.nets:resnet20 \
        --kwargs '{"num_classes": 10}' --state resnet20.pth --dataset cifar10 \
        --mean 0.4914 0.4822 0.4465 --std 0.2470 0.2435 0.2616 --out resnet20.safetensors

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
from torch import Tensor

from analog_samson.checkpoint import (
    Checkpoint,
    TrainingSpec,
    load_state,
    named_packages,
    save_checkpoint,
)
from analog_samson.commands import run_command
from analog_samson.data import load_dataset, path_in
from analog_samson.evaluation import count_correct
from analog_samson.models import (
    analog_layers,
    analog_share,
    audit,
    build_model,
    check_forward,
    check_weights,
    input_ranges,
    rewrite,
    select_output,
    take_packed,
)
from analog_samson.training import N_RANGE_IMAGES, check_runs


def main(
    factory: str,
    state: Path,
    out: Path,
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
) -> None:
    """Import a trained network: load its weights, evaluate it digitally, write a checkpoint.

    Args:
        factory: "package.module:function" that builds the network, or a model name of this
            package (resnet20).
        state: File of its state dict: .pth / .pt (tensors only, no other pickled objects) or
            .safetensors.
        out: Checkpoint to write (.safetensors).
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
    """
    options = _json_object(kwargs, "--kwargs")
    weights = _read_state(state)
    if bool(mean) != bool(std):
        raise ValueError(f"--mean and --std belong together; got mean={mean}, std={std}.")
    images = load_dataset(path_in(dataset, data_folder), data_folder)
    images = replace(images, mean=mean or images.mean, std=std or images.std)
    spec = TrainingSpec(
        dataset=images.name,
        model=factory,
        model_kwargs=options,
        method="external",
        epochs=0,
        keep_digital=keep_digital,
        rewrites=rewrites,
        augmentation=augmentation,
        output=output,
        inputs=_json_object(inputs, "--inputs"),
        seed=seed,
    )
    model = build_model(
        factory, image_shape=images.image_shape, n_classes=images.n_classes, seed=0, options=options
    )
    for name, own in model.state_dict().items():
        if name.endswith("num_batches_tracked"):  # missing in older files, and not used here
            weights.setdefault(name, own)
    load_state(model, weights, what=f"file {str(state)!r}", name=factory)
    take_packed(select_output(model, output), spec.packing).eval()
    n_train = len(images.train)
    chosen = torch.linspace(0, n_train - 1, min(N_RANGE_IMAGES, n_train)).long()
    calibration = images.normalise(images.train.images[chosen])
    rewriting = rewrite(model, rewrites, keep_digital)
    rewriting.check(calibration[:1])
    check_forward(rewriting.network, calibration[:1], keep_digital)
    check_runs(model, calibration[:1], images, name=factory)
    network = rewriting.network
    layers = analog_layers(network, keep_digital)
    check_weights(network, layers)
    n_correct = 0
    if images.task == "classification":
        n_correct = count_correct(
            lambda batch, _: network(batch),
            images.test.images,
            images.test.labels,
            images.normalise,
        )
    checkpoint = Checkpoint(
        spec=spec,
        state=model.state_dict(),
        input_ranges=input_ranges(network, calibration, keep_digital),
        largest_inputs=input_ranges(network, calibration, keep_digital, quantile=1.0),
        n_correct_digital=n_correct,
        n_test=len(images.test),
        image_shape=images.image_shape,
        n_classes=images.n_classes,
        mean=images.mean,
        std=images.std,
        class_names=images.class_names,
        full_scale=images.full_scale,
        task=images.task,
        n_tokens=images.n_tokens,
        made_with={"imported_from": state.name, "torch": torch.__version__},
    )
    save_checkpoint(out, checkpoint)
    for entry in audit(network, keep_digital):
        if entry.n_weights and not entry.analog:
            print(
                f"digital: {entry.name} ({entry.kind}, {entry.n_weights} weights): {entry.reason}"
            )
    correct = f"{n_correct} of {len(images.test)} test images correct " + (
        f"({100 * checkpoint.accuracy_digital:.2f} %)"
    )
    print(
        f"{out}: {correct if images.task == 'classification' else images.task}, {len(layers)} "
        f"analog layers with {100 * analog_share(network, keep_digital):.1f} % of the weights"
    )
    if packages := named_packages(spec):
        print(
            "It names code of other packages: commands that open it need "
            f"--trust {' '.join(packages)}"
        )


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
    for key in ("state_dict", "model_state_dict", "model", "net"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(v, Tensor) for v in found.values()):
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
