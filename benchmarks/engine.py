"""How much faster is the compiled engine than aihwkit's plain loop, and how far from digital?

    python benchmarks/engine.py --models lenet5 resnet20 --output engine.json    # about 10 minutes

One thread, random weights, interleaved: every round times every competitor once, medians over the
rounds. A point is one chip at one time. Its fixed cost (program, drift, compensation) and its cost
an image are measured apart and reported as fixed + 10,000 x slope. aihwkit runs at the batch size
(16 to 256) that is fastest for it; the engine and the digital network at EVALUATION_BATCH, both
traced by torch.compile, whose warm-up is reported and not counted: it is paid once an architecture.
"""

import argparse
import copy
import itertools
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from analog_samson import Device, load_device, program
from analog_samson.analog import tile_configuration
from analog_samson.evaluation import EVALUATION_BATCH
from analog_samson.models import build_model, input_ranges
from analog_samson.times import DAY

SHAPES = {"lenet5": (1, 28, 28), "resnet20": (3, 32, 32), "resnet18": (3, 32, 32)}
IMAGES = {"lenet5": 2000, "resnet20": 200, "resnet18": 100}
BATCHES = (16, 32, 64, 128, 256)
POINT = 10_000
IDEAL = {
    "dac_bits": "ideal",
    "adc_bits": "ideal",
    "output_bound": float("inf"),
    "output_noise": 0.0,
}


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_batches(forward: Callable[[Tensor, int], object], images: Tensor, size: int) -> None:
    """Run all images through a network."""
    for first in range(0, len(images), size):
        forward(images[first : first + size], first)


def with_periphery(name: str, periphery: str) -> Device:
    """A device file with its own converters, or none."""
    content = load_device(name).model_dump()
    if periphery == "weight_only":
        content["periphery"].update(IDEAL)
    return Device.model_validate(content)


class PlainLoop:
    """What a user of aihwkit writes: convert once; program, drift and run a chip at a time."""

    def __init__(self, network: nn.Module, periphery: str, ranges: dict[str, float]) -> None:
        from aihwkit.nn.conversion import convert_to_analog

        device = with_periphery("pcm_like_as_in_aihwkit", periphery)
        self.network = convert_to_analog(network, tile_configuration(device)).eval()
        if device.periphery.needs_input_ranges:
            for name, module in self.network.named_modules():
                if name in ranges:
                    for tile in module.analog_tiles():
                        tile.set_input_range(ranges[name])

    def fixed(self) -> None:
        """Program a chip and let it drift."""
        self.network.program_analog_weights()
        self.network.drift_analog_weights(DAY)

    def forward(self, batch: Tensor, first: int) -> Tensor:
        """Outputs."""
        outputs: Tensor = self.network(batch)
        return outputs


def measure(model: str, periphery: str, rounds: int) -> dict[str, object]:
    """Medians over interleaved rounds, for one network and one periphery."""
    network = build_model(model, image_shape=SHAPES[model], n_classes=10, seed=0).eval()
    network.requires_grad_(False)
    images = torch.randn(IMAGES[model], *SHAPES[model])
    ranges = input_ranges(network, images[:64])
    device = with_periphery("pcm_like", periphery)
    plain = PlainLoop(copy.deepcopy(network), periphery, ranges)
    plain.fixed()
    by_batch = {}
    for size in BATCHES:
        some = torch.randn(max(size, 64), *SHAPES[model])
        spent = seconds(lambda some=some, size=size: in_batches(plain.forward, some, size))
        by_batch[size] = spent / len(some)
    best = min(by_batch, key=lambda size: by_batch[size])

    digital = torch.compile(copy.deepcopy(network).to(memory_format=torch.channels_last))

    def digital_forward(batch: Tensor, first: int) -> object:
        return digital(batch.contiguous(memory_format=torch.channels_last))

    def chip(seed: int, precision: str) -> object:
        kwargs = {"precision": precision, "expected_images": 10**9, "engine": "compiled"}
        made = program(network, device, seed=seed, calibration=images[:1], **kwargs)
        return made.drift_to(DAY)

    kinds = ("fp32", "bf16")
    chips = {precision: chip(0, precision) for precision in kinds}
    batch = images[:EVALUATION_BATCH]
    warm_up = {"digital": seconds(lambda: digital_forward(batch, 0))}
    warm_up |= {kind: seconds(lambda kind=kind: chips[kind](batch)) for kind in kinds}
    # Calibration belongs to the checkpoint; a chip gets its ranges.
    calibration = seconds(lambda: input_ranges(network, images[:1]))
    slope: dict[str, list[float]] = {"aihwkit": [], "digital": [], "fp32": [], "bf16": []}
    fixed: dict[str, list[float]] = {"aihwkit": [], "fp32": [], "bf16": []}
    for number in range(rounds):
        forwards = {"aihwkit": plain.forward, "digital": digital_forward, **chips}
        for kind, forward in forwards.items():
            size = best if kind == "aihwkit" else EVALUATION_BATCH
            spent = seconds(lambda f=forward, size=size: in_batches(f, images, size))
            slope[kind].append(spent / len(images))
        fixed["aihwkit"].append(seconds(plain.fixed))
        for kind in kinds:
            spent = seconds(lambda kind=kind, number=number: chip(number, kind))
            fixed[kind].append(spent - (calibration if periphery != "weight_only" else 0.0))
    point = {
        kind: statistics.median(fixed.get(kind, [0.0])) + POINT * statistics.median(values)
        for kind, values in slope.items()
    }
    return {
        "model": model,
        "periphery": periphery,
        "aihwkit_batch": best,
        "aihwkit_s_per_image_by_batch": by_batch,
        "warm_up_s": warm_up,
        "fixed_s": {kind: statistics.median(values) for kind, values in fixed.items()},
        "s_per_image": {kind: statistics.median(values) for kind, values in slope.items()},
        "rounds": {"fixed_s": fixed, "s_per_image": slope},
        "point_of_10000_s": point,
        "times_faster_than_aihwkit": {kind: point["aihwkit"] / point[kind] for kind in kinds},
        "times_the_digital_network": {
            kind: statistics.median(slope[kind]) / statistics.median(slope["digital"])
            for kind in kinds
        },
    }


def main() -> None:
    """Measure what the command line names and print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["lenet5", "resnet20"], choices=SHAPES)
    parser.add_argument("--peripheries", nargs="+", default=["weight_only", "static_range"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    report = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__}
    found = []
    text = ""
    for model, periphery in itertools.product(arguments.models, arguments.peripheries):
        with torch.no_grad():
            found.append(measure(model, periphery, arguments.rounds))
        text = json.dumps({**report, "threads": 1, "measurements": found}, indent=1)
        if arguments.output:
            arguments.output.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
