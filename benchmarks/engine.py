"""Speed of the compiled engine, compared with aihwkit and with the digital network.

    python benchmarks/engine.py --models lenet5 resnet20 --output engine.json    # about 15 minutes

One thread, random weights, interleaved: each round measures every engine once, in CPU seconds of
this process; the result is the median over rounds. A point is one chip at one time. Its fixed cost
(program, drift, compensation) and its cost per image are measured separately and reported as fixed
+ 10,000 x cost per image. aihwkit runs at its fastest batch size (16 to 256); the engine and the
digital network run at EVALUATION_BATCH. The digital network is traced by torch.compile or runs
eagerly, whichever is faster. Warm-up, once per architecture, is reported and not included.

    python benchmarks/engine.py --accelerator cuda --chips-together 1 8 32

measures instead batched inference over the given numbers of chips, and the digital network, on a
CPU or a GPU (on a GPU in seconds of wall-clock time, after synchronisation).
"""

import argparse
import copy
import importlib.util
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
from analog_samson.chip import ChipGroup
from analog_samson.evaluation import EVALUATION_BATCH, exact_products, find_accelerator
from analog_samson.models import build_model, input_ranges, rewrite
from analog_samson.models.rewriting.recurrent import Recurrent
from analog_samson.times import DAY

SHAPES = {"lenet5": (1, 28, 28), "resnet20": (3, 32, 32), "resnet18": (3, 32, 32)}
SHAPES |= {"ds_cnn": (1, 40, 64), "vit_tiny": (3, 32, 32), "char_lstm": (64,)}
IMAGES = {"lenet5": 2048, "resnet20": 256, "resnet18": 128}
IMAGES |= {"ds_cnn": 256, "vit_tiny": 256, "char_lstm": 128}
AIHWKIT_IMAGES = {"lenet5": 512, "resnet20": 64, "resnet18": 16}
AIHWKIT_IMAGES |= {"ds_cnn": 32, "vit_tiny": 32, "char_lstm": 32}
VOCABULARY = 65
"""Outputs of `char_lstm`: the characters of Shakespeare's text."""
BATCHES = (16, 32, 64, 128, 256)
POINT = 10_000
IDEAL = {
    "dac_bits": "ideal",
    "adc_bits": "ideal",
    "output_bound": float("inf"),
    "output_noise": 0.0,
}
PERIPHERIES = {
    "weight_only": ("pcm_like", IDEAL),
    "static_range": ("pcm_like", {}),
    "hwa_preset": ("pcm_like_hwa_preset", {}),
    "abs_max": ("pcm_like_abs_max", {}),
}
TARGETS = {
    "weight_only": {"lenet5": (14, 25), "resnet20": (11, 22), "resnet18": (3.6, 10)},
    "static_range": {"lenet5": (25, 30), "resnet20": (20, 30), "resnet18": (5.5, 12)},
    "hwa_preset": {"lenet5": (10, None), "resnet20": (15, None), "resnet18": (10, None)},
    "abs_max": {"lenet5": (4, None), "resnet20": (5, None), "resnet18": (3, None)},
}
"""Required speed relative to aihwkit, (fp32, bf16); None: no bf16."""
ALLOWED = {"weight_only": 1.15, "static_range": 1.5, "hwa_preset": 5, "abs_max": 5}
"""Largest allowed time relative to the digital network, fp32."""
ALLOWED_OF = {
    "vit_tiny": {"weight_only": 1.15, "static_range": 1.5},
    "ds_cnn": {"weight_only": 1.0, "static_range": 1.8},
    "char_lstm": {"weight_only": 2.0, "static_range": 3.0},
}
"""The same for networks whose digital part is large; of the LSTM relative to `nn.LSTM`."""
OTHERS = {
    "CrossSim": "not measured: it is not on PyPI",
    "aihwkit-lightning": "forward pass alone, where it is installed: it neither programs nor "
    "drifts a chip, and outside of training its products have converters but no noise",
}
KINDS = ("fp32", "bf16")


def seconds(work: Callable[[], object], where: str = "cpu") -> float:
    """CPU seconds of this process for one call; wall-clock seconds on a GPU."""
    if where != "cpu":
        torch.cuda.synchronize()
    clock = time.process_time if where == "cpu" else time.perf_counter
    start = clock()
    work()
    if where != "cpu":
        torch.cuda.synchronize()
    return clock() - start


def in_batches(forward: Callable[[Tensor, int], object], images: Tensor, size: int) -> None:
    """Run all images through a network."""
    for first in range(0, len(images), size):
        forward(images[first : first + size], first)


def with_periphery(periphery: str, *, as_in_aihwkit: bool = False) -> Device:
    """The PCM model with one of the peripheries, at conductance level or on aihwkit's path."""
    name, converters = PERIPHERIES[periphery]
    content = load_device(name).model_dump()
    content["periphery"].update(converters)
    if as_in_aihwkit:
        content["noise_level"] = "weight_as_in_aihwkit"
        content["drift_compensation"]["read_outs"] = 1
    return Device.model_validate(content)


class PlainLoop:
    """The usual loop with aihwkit: convert once; program, drift and run chip by chip."""

    def __init__(self, network: nn.Module, periphery: str, ranges: dict[str, float]) -> None:
        from aihwkit.nn.conversion import convert_to_analog

        device = with_periphery(periphery, as_in_aihwkit=True)
        configuration = tile_configuration(device)
        network = rewrite(network).network
        rnns = {
            name: _own_rnn(module, configuration, ranges, name)
            for name, module in network.named_modules()
            if isinstance(module, Recurrent)
        }
        groups = [name for name, m in network.named_modules() if getattr(m, "groups", 1) > 1]
        for name in rnns:
            network.set_submodule(name, nn.Identity())
        network = convert_to_analog(network, configuration, exclude_modules=groups).eval()
        for name, rnn in rnns.items():
            network.set_submodule(name, rnn)
        self.network = network
        if device.periphery.needs_input_ranges:
            for name, module in self.network.named_modules():
                if name in ranges and hasattr(module, "analog_tiles"):
                    for tile in module.analog_tiles():
                        tile.set_input_range(ranges[name])
        self.fixed()
        self.batch, self.by_batch = 0, {}

    def fixed(self) -> None:
        """Program a chip and let it drift."""
        self.network.program_analog_weights()
        self.network.drift_analog_weights(DAY)

    def forward(self, batch: Tensor, first: int) -> Tensor:
        """Outputs."""
        outputs: Tensor = self.network(batch)
        return outputs

    def choose_batch(self, shape: tuple[int, int, int], n_images: int) -> None:
        """Choose the fastest batch size, by seconds per image."""
        for size in BATCHES:
            some = some_inputs(max(size, n_images // size * size), shape)
            self.forward(some[:16], 0)
            spent = seconds(lambda some=some, size=size: in_batches(self.forward, some, size))
            self.by_batch[size] = spent / len(some)
        self.batch = min(self.by_batch, key=lambda size: self.by_batch[size])


class _BatchFirst(nn.Module):
    """aihwkit's `AnalogRNN`, which takes time first, as the layer that it stands for."""

    def __init__(self, rnn: nn.Module) -> None:
        super().__init__()
        self.rnn = rnn

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """Outputs of all steps, batch first."""
        return self.rnn(x.transpose(0, 1))[0].transpose(0, 1), None


def _own_rnn(
    layer: Recurrent, configuration: object, ranges: dict[str, float], name: str
) -> nn.Module:
    """Build aihwkit's own LSTM with the weights of one that was rewritten."""
    from aihwkit.nn import AnalogLSTMCell, AnalogRNN

    sizes = layer.input_size, layer.hidden_size
    rnn = AnalogRNN(
        AnalogLSTMCell, *sizes, rpu_config=configuration, num_layers=layer.num_layers
    ).eval()
    for number, own in enumerate(rnn.rnn.layers):
        for of in ("ih", "hh"):
            linear, full = getattr(own.cell, f"weight_{of}"), f"l{number}.{of}"
            digital = layer.get_submodule(full)
            linear.set_weights(digital.weight.detach().clone(), digital.bias.detach().clone())
            for tile in linear.analog_tiles():
                if configuration.pre_post.input_range.enable:
                    tile.set_input_range(ranges[f"{name}.{full}"])
    return _BatchFirst(rnn)


def some_inputs(n: int, shape: tuple[int, ...]) -> Tensor:
    """Random images, or tokens for a shape of one dimension."""
    if len(shape) == 1:
        return torch.randint(VOCABULARY, (n, *shape))
    return torch.randn(n, *shape)


def digital_forward(
    network: nn.Module, images: Tensor, where: str = "cpu"
) -> tuple[Callable[..., object], float]:
    """The faster of the traced and the eager digital network, and its warm-up in seconds."""
    last = copy.deepcopy(network).to(memory_format=torch.channels_last)
    traced = torch.compile(last)

    def in_layout(batch: Tensor) -> Tensor:
        return batch.contiguous(memory_format=torch.channels_last) if batch.ndim == 4 else batch

    forwards: list[Callable[..., object]] = [lambda batch, first: network(batch)]
    if not any(isinstance(module, nn.RNNBase) for module in network.modules()):
        forwards.append(lambda batch, first: traced(in_layout(batch)))
    warm_up = max(seconds(lambda f=f: f(images[:EVALUATION_BATCH], 0), where) for f in forwards)
    spent = [
        min(seconds(lambda f=f: in_batches(f, images, EVALUATION_BATCH), where) for _ in range(3))
        for f in forwards
    ]
    return forwards[spent.index(min(spent))], warm_up


def lightning_forward(
    network: nn.Module, periphery: str, ranges: dict[str, float]
) -> Callable[[Tensor, int], object] | None:
    """The network on aihwkit-lightning; None if not installed or the periphery is unsupported."""
    if not importlib.util.find_spec("aihwkit_lightning") or ALLOWED[periphery] > 2:
        return None
    from aihwkit_lightning.nn.conversion import convert_to_analog
    from aihwkit_lightning.simulator.configs import TorchInferenceRPUConfig

    device, configuration = with_periphery(periphery), TorchInferenceRPUConfig()
    configuration.mapping.max_input_size = device.mapping.max_rows
    if device.periphery.needs_input_ranges:
        configuration.pre_post.input_range.enable = True
        configuration.forward.inp_res = 2**device.periphery.dac_bits - 2
        configuration.forward.out_res = 2**device.periphery.adc_bits - 2
        configuration.forward.out_bound = device.periphery.output_bound
    converted = convert_to_analog(copy.deepcopy(network), configuration).eval()
    if device.periphery.needs_input_ranges:
        for name, layer in converted.named_modules():
            if name in ranges:
                layer.input_range.data.fill_(ranges[name])
    return lambda batch, first: converted(batch)


def built(model: str) -> nn.Module:
    """A network with random weights."""
    n_classes = VOCABULARY if len(SHAPES[model]) == 1 else 10
    network = build_model(model, image_shape=SHAPES[model], n_classes=n_classes, seed=0).eval()
    return network.requires_grad_(False)


def measure(model: str, periphery: str, rounds: int) -> dict[str, object]:
    """Medians over interleaved rounds for one network and one periphery."""
    wanted = TARGETS[periphery].get(model, (None, None))
    kinds = [kind for kind in KINDS if kind == "fp32" or wanted[1]]
    allowed = ALLOWED_OF.get(model, ALLOWED).get(periphery, ALLOWED[periphery])
    network = built(model)
    images = some_inputs(IMAGES[model], SHAPES[model])
    few = images[: AIHWKIT_IMAGES[model]]
    ranges = input_ranges(rewrite(network).network, images[:64])
    device = with_periphery(periphery)
    plain = PlainLoop(copy.deepcopy(network), periphery, ranges)
    plain.choose_batch(SHAPES[model], len(few))
    digital, warm_up = digital_forward(network, images)

    def chip(seed: int, precision: str) -> Callable[[Tensor, int], object]:
        made = program(
            network,
            device,
            seed=seed,
            input_ranges=ranges,
            engine="compiled",
            precision=precision,
            expected_images=POINT,
        )
        return made.drift_to(DAY)

    chips = {kind: chip(0, kind) for kind in kinds}
    lightning = lightning_forward(network, periphery, ranges)
    warm_ups = {"digital": warm_up}
    batch = images[:EVALUATION_BATCH]
    warm_ups |= {kind: seconds(lambda kind=kind: chips[kind](batch, 0)) for kind in kinds}
    slope: dict[str, list[float]] = {"aihwkit": [], "digital": [], **{k: [] for k in kinds}}
    others: list[float] = []
    fixed: dict[str, list[float]] = {"aihwkit": [], **{kind: [] for kind in kinds}}
    for number in range(rounds):
        spent = seconds(lambda: in_batches(plain.forward, few, plain.batch))
        slope["aihwkit"].append(spent / len(few))
        for kind, forward in {"digital": digital, **chips}.items():
            spent = seconds(lambda f=forward: in_batches(f, images, EVALUATION_BATCH))
            slope[kind].append(spent / len(images))
        if lightning:
            spent = seconds(lambda: in_batches(lightning, few, plain.batch))
            others.append(spent / len(few))
        fixed["aihwkit"].append(seconds(plain.fixed))
        for kind in kinds:
            fixed[kind].append(seconds(lambda kind=kind, seed=number: chip(seed, kind)))
    point = {
        kind: statistics.median(fixed.get(kind, [0.0])) + POINT * statistics.median(values)
        for kind, values in slope.items()
    }
    return {
        "model": model,
        "periphery": periphery,
        "aihwkit_batch": plain.batch,
        "aihwkit_s_per_image_by_batch": plain.by_batch,
        "warm_up_s": warm_ups,
        "fixed_s": {kind: statistics.median(values) for kind, values in fixed.items()},
        "s_per_image": {kind: statistics.median(values) for kind, values in slope.items()},
        "lightning_s_per_image": statistics.median(others) if others else None,
        "rounds": {"fixed_s": fixed, "s_per_image": slope},
        "point_of_10000_s": point,
        "times_faster_than_aihwkit": {kind: point["aihwkit"] / point[kind] for kind in kinds},
        "times_faster_wanted": dict(zip(KINDS, wanted, strict=True)),
        "times_the_digital_network": {
            kind: statistics.median(slope[kind]) / statistics.median(slope["digital"])
            for kind in kinds
        },
        "times_the_digital_network_allowed": allowed,
    }


def measure_together(
    model: str, periphery: str, rounds: int, where: str, sizes: list[int]
) -> dict[str, object]:
    """Medians over interleaved rounds: batched inference over chips, and the digital network."""
    network = built(model)
    images = some_inputs(IMAGES[model] * (1 if where == "cpu" else 16), SHAPES[model])
    ranges = input_ranges(rewrite(network).network, images[:64])
    device = with_periphery(periphery)
    images = images.to(where)

    def group(size: int, first_seed: int) -> ChipGroup:
        options = {"input_ranges": ranges, "engine": "compiled", "expected_images": POINT}
        seeds = range(first_seed, first_seed + size)
        chips = [program(network, device, seed=seed, **options) for seed in seeds]
        return ChipGroup(chips).drift_to(DAY)

    groups = {size: group(size, 0) for size in sizes}
    batch = images[:EVALUATION_BATCH]
    warm_ups = {
        size: seconds(lambda chips=chips: chips(batch, 0), where) for size, chips in groups.items()
    }
    digital, warm_ups["digital"] = digital_forward(copy.deepcopy(network).to(where), images, where)
    slope: dict[str, list[float]] = {"digital": [], **{str(size): [] for size in sizes}}
    fixed: dict[str, list[float]] = {str(size): [] for size in sizes}
    for number in range(rounds):
        spent = seconds(lambda: in_batches(digital, images, EVALUATION_BATCH), where)
        slope["digital"].append(spent / len(images))
        for size, chips in groups.items():
            spent = seconds(lambda c=chips: in_batches(c, images, EVALUATION_BATCH), where)
            slope[str(size)].append(spent / len(images) / size)
            spent = seconds(lambda s=size, n=number: group(s, s * n), where)
            fixed[str(size)].append(spent / size)
    s_per_image = {size: statistics.median(values) for size, values in slope.items()}
    return {
        "model": model,
        "periphery": periphery,
        "accelerator": where,
        "warm_up_s": warm_ups,
        "fixed_s_per_chip": {size: statistics.median(values) for size, values in fixed.items()},
        "s_per_chip_and_image": s_per_image,
        "rounds": {"fixed_s_per_chip": fixed, "s_per_chip_and_image": slope},
        "times_faster_than_alone": {
            str(size): s_per_image[str(sizes[0])] / s_per_image[str(size)] for size in sizes
        },
    }


def table_together(found: list[dict[str, object]]) -> str:
    """Markdown table: microseconds per chip and image."""
    sizes = list(found[0]["s_per_chip_and_image"])
    heads = " | ".join(["digital", *(f"{size} together" for size in sizes[1:])])
    lines = [f"| network | periphery | {heads} |", "|---" * (len(sizes) + 2) + "|"]
    for one in found:
        cells = [f"{1e6 * value:.4g} µs" for value in one["s_per_chip_and_image"].values()]
        lines.append(f"| {one['model']} | {one['periphery']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def table(found: list[dict[str, object]]) -> str:
    """Markdown table: measured values, and required values in brackets."""
    lines = [
        "| network | periphery | aihwkit | digital | fp32 | bf16 | x aihwkit fp32 | bf16 "
        "| x digital fp32 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in found:
        point, wanted = one["point_of_10000_s"], one["times_faster_wanted"]
        faster, times = one["times_faster_than_aihwkit"], one["times_the_digital_network"]
        cells = [
            f"{point[kind]:.3g} s" if kind in point else "-"
            for kind in ("aihwkit", "digital", *KINDS)
        ]
        cells += [
            f"{faster[kind]:.1f} ({wanted[kind]})" if kind in faster else "-" for kind in KINDS
        ]
        cells += [f"{times['fp32']:.2f} ({one['times_the_digital_network_allowed']})"]
        lines.append(f"| {one['model']} | {one['periphery']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure as given on the command line, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["lenet5", "resnet20"], choices=SHAPES)
    parser.add_argument("--peripheries", nargs="+", default=list(PERIPHERIES), choices=PERIPHERIES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--accelerator", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--chips-together", nargs="+", type=int, default=[])
    parser.add_argument("--output", type=Path, default=Path("engine.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    where = find_accelerator(arguments.accelerator)
    together = arguments.chips_together or ([1, 8] if where.type == "cuda" else [])
    is_cpu = where.type == "cpu"
    report = {
        "machine": platform.processor() or platform.machine(),
        "accelerator": "cpu" if is_cpu else torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "threads": 1,
        "seconds": "of this process on the processor" if is_cpu else "of the clock",
        "other_simulators": OTHERS,
    }
    show = table_together if together else table
    found = []
    for model, periphery in itertools.product(arguments.models, arguments.peripheries):
        with torch.no_grad(), exact_products(where):
            if together:
                what = model, periphery, arguments.rounds, where.type, together
                found.append(measure_together(*what))
            else:
                found.append(measure(model, periphery, arguments.rounds))
        text = json.dumps({**report, "measurements": found}, indent=1)
        arguments.output.write_text(text + "\n")
        print(show(found[-1:]).splitlines()[-1], flush=True)
    print(show(found))


if __name__ == "__main__":
    main()
