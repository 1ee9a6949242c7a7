"""The same small study with other tools and with this package: lines of code and seconds.

    python benchmarks/same_study.py

A convolutional network on scikit-learn's digits, on one thread.

- Drift, with aihwkit alone: five chips of PCM (8-bit converters, calibrated ranges, output noise
  0.04, global drift compensation), 1 s to 1 year.
- Programming error, with CrossSim where it is installed: twenty chips of ReRAM, the fit that both
  tools have, one scale an array, ideal converters, one second.

The ways take turns; the first turn (imports, compilation) is not counted. About a minute.
"""

import importlib.util
import inspect
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from analog_samson.data import load_dataset, normalise
from analog_samson.times import DAY, HOUR, MONTH, YEAR

TIMES_S = (1.0, HOUR, DAY, MONTH, YEAR)
N_CHIPS, N_PROGRAMMED, N_TURNS = 5, 20, 5

Accuracies = list[list[float]]


# fmt: off
def with_aihwkit(network: nn.Module, x: Tensor, x_test: Tensor, labels: Tensor) -> Accuracies:
    """Accuracy of every chip at every time, by aihwkit's own functions."""
    from aihwkit.inference import GlobalDriftCompensation, PCMLikeNoiseModel
    from aihwkit.inference.calibration import InputRangeCalibrationType, calibrate_input_ranges
    from aihwkit.nn.conversion import convert_to_analog
    from aihwkit.simulator.configs import TorchInferenceRPUConfig
    from aihwkit.simulator.parameters.enums import BoundManagementType, NoiseManagementType

    config = TorchInferenceRPUConfig()
    config.mapping.weight_scaling_omega = 1.0  # the default, 0, does not scale
    config.mapping.weight_scaling_columnwise = True
    config.mapping.max_input_size, config.mapping.max_output_size = 512, 0
    config.forward.inp_res = config.forward.out_res = 254
    config.forward.inp_bound, config.forward.out_bound = 1.0, 10.0
    config.forward.out_noise = 0.04
    config.forward.noise_management = NoiseManagementType.NONE
    config.forward.bound_management = BoundManagementType.NONE
    config.pre_post.input_range.enable = True
    config.noise_model = PCMLikeNoiseModel(g_max=25.0)
    config.drift_compensation = GlobalDriftCompensation()
    accuracies = []
    for seed in range(N_CHIPS):
        torch.manual_seed(seed)
        analog = convert_to_analog(network, config).eval()  # anew for each chip
        kind = InputRangeCalibrationType.CACHE_QUANTILE
        batches = (((batch,), {}) for batch in x.split(100))
        calibrate_input_ranges(analog, kind, batches, quantile=0.99995)
        analog.program_analog_weights()
        accuracies.append([])
        for t in TIMES_S:
            analog.drift_analog_weights(t)
            with torch.no_grad():
                outputs = torch.cat([analog(batch) for batch in x_test.split(32)])
            accuracies[-1].append((outputs.argmax(1) == labels).double().mean().item())
    return accuracies


def with_this(network: nn.Module, x: Tensor, x_test: Tensor, labels: Tensor) -> Accuracies:
    """The same by this package."""
    from analog_samson import program

    accuracies = []
    for seed in range(N_CHIPS):
        chip = program(network, "pcm_like", seed=seed, calibration=x)
        accuracies.append([])
        for t in TIMES_S:
            outputs = chip.drift_to(t)(x_test)
            accuracies[-1].append((outputs.argmax(1) == labels).double().mean().item())
    return accuracies


def programmed_with_crosssim(
    network: nn.Module, x: Tensor, x_test: Tensor, labels: Tensor
) -> Accuracies:
    """Accuracy of every chip of ReRAM after programming, by CrossSim."""
    from simulator import CrossSimParameters
    from simulator.algorithms.dnn.torch.convert import from_torch, reinitialize

    params = CrossSimParameters()
    params.core.style = "BALANCED"
    params.core.rows_max = params.core.cols_max = 512
    params.xbar.device.Rmin = 1 / 39.26e-6
    params.xbar.device.infinite_on_off_ratio = True
    params.xbar.device.programming_error.enable = True
    params.xbar.device.programming_error.model = "RRAMWan"
    analog = from_torch(network, params)
    accuracies = []
    for seed in range(N_PROGRAMMED):
        np.random.seed(seed)  # noqa: NPY002 (CrossSim draws from it)
        reinitialize(analog)
        with torch.no_grad():
            outputs = torch.cat([analog(batch) for batch in x_test.split(32)])
        accuracies.append([(outputs.argmax(1) == labels).double().mean().item()])
    return accuracies


def programmed_with_this(
    network: nn.Module, x: Tensor, x_test: Tensor, labels: Tensor
) -> Accuracies:
    """The same by this package."""
    from analog_samson import load_device, program

    ideal = {"dac_bits": "ideal", "adc_bits": "ideal", "output_noise": 0.0, "scale": "tile"}
    device = load_device("reram_wan2022_crosssim").with_axes(ideal)
    accuracies = []
    for seed in range(N_PROGRAMMED):
        outputs = program(network, device, seed=seed, calibration=x[:10]).drift_to(1.0)(x_test)
        accuracies.append([(outputs.argmax(1) == labels).double().mean().item()])
    return accuracies
# fmt: on


def main() -> None:
    """Print the tables."""
    torch.set_num_threads(1)
    ways = {"aihwkit alone": with_aihwkit, "this package": with_this}
    compare(ways, "1 s, 1 h, 1 d, 1 mo, 1 y")
    if importlib.util.find_spec("simulator"):
        compare({"CrossSim": programmed_with_crosssim, "this package": programmed_with_this}, "1 s")


def compare(ways: dict[str, Callable[..., Accuracies]], when: str) -> None:
    """Print a table of ways that take turns."""
    network, x, x_test, labels = trained()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    means: dict[str, np.ndarray] = {}
    for turn in range(1 + N_TURNS):
        for name, way in ways.items():
            start = time.process_time()
            means[name] = np.mean(way(network, x, x_test, labels), axis=0)
            if turn:
                seconds[name].append(time.process_time() - start)
    print(f"| | lines of code | processor seconds | accuracy [%] at {when} |")
    print("|:--|--:|--:|:--|")
    for name, way in ways.items():
        scores = ", ".join(f"{100 * mean:.1f}" for mean in means[name])
        median = statistics.median(seconds[name])
        print(f"| {name} | {lines(way)} | {median:.2f} | {scores} |")


def lines(way: Callable[..., object]) -> int:
    """Lines of a function without its head, docstring and blank lines."""
    _, _, body = inspect.getsource(way).partition('"""\n')
    return len([line for line in body.splitlines() if line.strip()])


def trained() -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """A network on the digits, training inputs, test inputs and test labels."""
    digits = load_dataset("digits")
    scale = {"mean": digits.mean, "std": digits.std, "full_scale": digits.full_scale}
    x, x_test = (normalise(part.images, **scale) for part in (digits.train, digits.test))
    torch.manual_seed(0)
    first, second = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)
    head = nn.Linear(512, 10)
    network = nn.Sequential(
        first, nn.ReLU(), nn.MaxPool2d(2), second, nn.ReLU(), nn.Flatten(), head
    )
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    for _ in range(10):
        for batch in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            F.cross_entropy(network(x[batch]), digits.train.labels[batch]).backward()
            optimizer.step()
    return network.eval(), x, x_test, digits.test.labels


if __name__ == "__main__":
    main()
