"""Claims about cells in a row: the bits of single calls."""

import pytest
import torch
from torch import Tensor

from analog_samson import load_device
from analog_samson.analog import Physics
from analog_samson.analog.rows import Row, fits_in_row
from analog_samson.devices import Device
from analog_samson.streams import Stream
from analog_samson.times import DAY

SHAPES = (64, 64), (10, 64), (3, 16, 4)
FAULTS = {"faults": {"stuck_low": 0.1, "stuck_high": 0.05}}
TWO_PAIRS = {"mapping": {"pair_significances": (1.0, 2.0)}}


def device(name: str = "pcm_like", **sections: dict[str, object]) -> Device:
    content = load_device(name).model_dump()
    for section, values in sections.items():
        content[section] = (content.get(section) or {}) | values
    return Device.model_validate(content)


def weights() -> list[Tensor]:
    """Target weights of arrays; the largest of each is 1."""
    generator = torch.Generator().manual_seed(0)
    targets = [2 * torch.rand(shape, generator=generator) - 1 for shape in SHAPES]
    for target in targets:
        target.view(-1)[:5] = torch.tensor([1.0, 0.0, -1.0, 0.0, 0.5])
    return targets


@pytest.mark.parametrize("n_chips", [1, 3])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("changes", [{}, FAULTS, TWO_PAIRS], ids=["plain", "faults", "two pairs"])
def test_cells_in_a_row_are_those_of_single_calls_to_the_bit(changes, threads, n_chips):
    physics, targets = Physics(device(**changes)), weights()
    assert all(map(fits_in_row, targets))
    before = torch.get_rng_state()
    torch.set_num_threads(threads)
    try:
        row = Row.of(physics, targets)
        assert row is not None
        if not row.takes(n_chips):
            assert threads == 2
            return
        cells = range(row.n_cells)
        seeds = [[[Stream(n, i, cell) for cell in cells] for i in range(3)] for n in range(n_chips)]
        in_order = [[of_array[cell] for cell in cells for of_array in own] for own in seeds]
        programmed = row.program(in_order)
        alone = []
        for of_chip, own_seeds in zip(programmed.by_chip(), seeds, strict=True):
            by_array = zip(targets, row.by_array(of_chip), own_seeds, strict=True)
            for target, states, own in by_array:
                uS, scale = physics.to_conductances(target)
                single = [physics.program(each, seed) for each, seed in zip(uS, own, strict=True)]
                for state, expected in zip(states, single, strict=True):
                    for what, tensor in vars(expected).items():
                        found = getattr(state, what)
                        same = (
                            torch.equal(found.nan_to_num(-1), tensor.nan_to_num(-1))
                            if (tensor is not None)
                            else found is None
                        )
                        assert same, what
                alone.append((single, scale, own))
        for time, read in ((0.0, 0), (DAY, 0), (DAY, 1)):
            whole, found = row.weights(row.read(programmed, time, read, in_order))
            assert torch.equal(whole, torch.cat([each.flatten(1) for each in found], dim=1))
            parts = [part for of_chip in zip(*found, strict=True) for part in of_chip]
            for each, (single, scale, own) in zip(parts, alone, strict=True):
                aged = [physics.read(s, time, read, o) for s, o in zip(single, own, strict=True)]
                assert torch.equal(each, physics.to_weights(aged, scale))
    finally:
        torch.set_num_threads(1)
    assert torch.equal(torch.get_rng_state(), before)


def test_other_arrays_are_computed_one_by_one():
    """Other noise models, one array alone, large ones, and an array of zeros among others."""
    physics, targets = Physics(device()), weights()
    assert Row.of(physics, targets[:1]) is None
    assert Row.of(physics, [*targets, torch.ones(256, 128)]) is None
    assert Row.of(physics, [*targets, torch.zeros(8, 8)]) is None
    assert not fits_in_row(torch.ones(7, 9))
    for name in ("pcm_custom_drift", "reram_wan2022", "reram_cmo"):
        assert Row.of(Physics(load_device(name)), targets) is None
