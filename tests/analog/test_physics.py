"""Claims about what devices do to conductances over time, against the published formulas.

Moments of every device file are in ``test_every_device``. Normalised errors are standard normal, so
their sum of squares is chi-square with n degrees of freedom and their mean is normal. n = 3880 a
level; seeds are fixed; every test below uses a false-alarm rate of ``ALPHA`` a statistic, and the
whole file makes fewer than 1000 of them, so that it would fail by chance with a probability under
1e-6.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from synthetic_trials import make_trials
from torch import nn

from analog_samson import Study, load_device, program
from analog_samson.analog import Physics
from analog_samson.checkpoint import TrainingSpec
from analog_samson.report import Content, study_tables
from analog_samson.report.contents import warnings_of
from analog_samson.results import has_trajectories, lifetime
from analog_samson.times import DAY, HOUR, YEAR
from analog_samson.training import train

ALPHA = 1e-9
TIMES_S = (HOUR, DAY, YEAR)
N_COLUMNS, N_ROWS = 40, 486  # one array; row 0 holds the largest weight of every column
N_LEVELS = 5
PER_LEVEL = (N_ROWS - 1) // N_LEVELS * N_COLUMNS


@dataclass(frozen=True)
class Law:
    """What is needed of the published laws; the rest is in ``test_every_device``."""

    t_0: float
    sigma_at_0: float  # spread of programming at a target of 0, µS
    levels: tuple[float, ...]  # high enough that no device is clipped at 0


LAWS = {
    "pcm_like": Law(20.0, 0.26348, (0.2, 0.4, 0.6, 0.8, 1.0)),
    "pcm_hermes": Law(300.0, 0.16603222, (0.35, 0.5, 0.65, 0.8, 1.0)),
}

WAN = {  # Wan et al. 2022, ascending powers of u, µS at g_max 40 µS
    1.0: (0.348, 16.030, -43.853, 45.393, -16.815),
    DAY: (0.701, 22.086, -50.773, 47.095, -16.458),
    2 * DAY: (0.782, 20.274, -43.507, 37.062, -11.934),
}
WAN_LEVELS = (0.4, 0.55, 0.7, 0.85, 1.0)
CMO_LEVELS = (-0.6, -0.3, 0.0, 0.3, 0.6)  # weights; -1 is 9 µS and 1 is 88.2 µS
CMO_TIMES_S = (HOUR, DAY, 7 * DAY)


def network(levels: tuple[float, ...], lowest: float = 0.0) -> nn.Linear:
    """One array whose columns hold the largest weight once and every level many times."""
    layer = nn.Linear(N_ROWS, N_COLUMNS, bias=False)
    row = np.concatenate([[1.0], np.repeat(levels, (N_ROWS - 1) // N_LEVELS)])
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(row, dtype=torch.float32).expand(N_COLUMNS, -1))
        layer.weight[0, 0] = lowest or 1.0
    return layer


@functools.lru_cache(maxsize=64)
def conductances(name, t, levels, *, read=0, seed=1, device_of_pair=0, lowest=0.0, **axes):
    """Conductances as read [µS], shape (levels, n): axes are given as keyword arguments."""
    chip = program(network(levels, lowest), load_device(name).with_axes(axes), seed=seed)
    devices = chip.drift_to(t, read=read).conductances()[""][0]
    read_uS = devices[device_of_pair].double().numpy()[:, 1:]
    return read_uS.reshape(N_COLUMNS, N_LEVELS, -1).transpose(1, 0, 2).reshape(N_LEVELS, -1)


def assert_standard_normal(z):
    """Mean and spread of every row of z; z of shape (levels, n)."""
    n = z.shape[1]
    assert n == PER_LEVEL
    for level, row in enumerate(z):
        p_mean = 2 * stats.norm.sf(abs(row.mean()) * math.sqrt(n))
        squares = np.square(row).sum()
        p_spread = 2 * min(stats.chi2.sf(squares, n), stats.chi2.cdf(squares, n))
        assert p_mean > ALPHA, f"level {level}: mean {row.mean():.4f}"
        assert p_spread > ALPHA, f"level {level}: spread {math.sqrt(squares / n):.4f}"


def column(values):
    return np.array(values)[:, None]


def exponents(name, t, law, **options):
    start = conductances(name, 0.0, law.levels, read_noise_1f_scale=0.0, **options)
    aged = conductances(name, t, law.levels, read_noise_1f_scale=0.0, **options)
    return -np.log(aged / start) / math.log((t + law.t_0) / law.t_0)


# --- power-law devices --------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAWS)
def test_the_exponent_of_a_cell_is_the_same_at_every_time(name):
    law = LAWS[name]
    early, late = (exponents(name, t, law).ravel() for t in (HOUR, YEAR))
    assert np.corrcoef(early, late)[0, 1] > 1 - 1e-6
    np.testing.assert_allclose(early, late, atol=1e-5)


@pytest.mark.parametrize("name", LAWS)
def test_the_second_cell_of_a_pair_has_its_own_state(name):
    """Its target is 0: half of its errors are clipped there, the others are half-normal."""
    law = LAWS[name]
    programmed = conductances(name, 0.0, law.levels, device_of_pair=1, read_noise_1f_scale=0.0)
    positive = programmed[programmed > 0]
    n = programmed.size
    assert stats.binomtest(len(positive), n, 0.5).pvalue > ALPHA
    squares = np.square(positive / law.sigma_at_0).sum()
    chi2 = stats.chi2(len(positive))
    assert 2 * min(chi2.sf(squares), chi2.cdf(squares)) > ALPHA
    with np.errstate(divide="ignore", invalid="ignore"):
        early, late = (exponents(name, t, law, device_of_pair=1) for t in (HOUR, YEAR))
    alive = programmed > 0.01
    np.testing.assert_allclose(early[alive], late[alive], atol=1e-5)


@pytest.mark.parametrize("name", LAWS)
def test_two_reads_differ_by_their_own_draw_and_share_all_else(name):
    """Independent normals, n = 5 x 3880: |r| < 6.1 / sqrt(n) but for a chance of 1e-9."""
    law = LAWS[name]
    drifted = conductances(name, DAY, law.levels, read_noise_1f_scale=0.0)
    one, two = (
        ((conductances(name, DAY, law.levels, read=read) - drifted) / drifted).ravel()
        for read in (0, 1)
    )
    assert abs(np.corrcoef(one, two)[0, 1]) < 6.1 / math.sqrt(one.size)


# --- ReRAM --------------------------------------------------------------------------------------


def test_the_gain_common_to_a_wan_array_is_one():
    """Least-squares gain of an array: 1 within its sampling error (normal, no clipped device)."""
    u = column(WAN_LEVELS)
    target = np.broadcast_to(40.0 * u, (N_LEVELS, PER_LEVEL))
    for t, powers in WAN.items():
        sigma = np.broadcast_to(sum(c * u**k for k, c in enumerate(powers)), target.shape)
        observed = conductances("reram_wan2022", t, WAN_LEVELS)
        gain = (observed * target).sum() / np.square(target).sum()
        error = math.sqrt(np.square(sigma * target).sum()) / np.square(target).sum()
        assert 2 * stats.norm.sf(abs(gain - 1) / error) > ALPHA
        assert error < 0.001, "aihwkit's own path has a gain of spread 0.021"


def test_a_wan_cell_keeps_its_quantile_over_time():
    u = column(WAN_LEVELS)
    places = [
        (conductances("reram_wan2022", t, WAN_LEVELS) - 40 * u)
        / sum(c * u**power for power, c in enumerate(powers))
        for t, powers in WAN.items()
    ]
    for later in places[1:]:
        assert np.corrcoef(places[0].ravel(), later.ravel())[0, 1] > 0.9999


def test_wans_times_can_be_independent_draws():
    """Independent normals, n = 5 x 3880: |r| < 6.1 / sqrt(n) but for a chance of 1e-9."""
    u = column(WAN_LEVELS)
    axes = {"times_share": "independent"}
    one, two = (
        (conductances("reram_wan2022", t, WAN_LEVELS, **axes) - 40 * u)
        / sum(c * u**power for power, c in enumerate(WAN[t]))
        for t in (1.0, DAY)
    )
    assert_standard_normal(one)
    assert_standard_normal(two)
    assert abs(np.corrcoef(one.ravel(), two.ravel())[0, 1]) < 6.1 / math.sqrt(one.size)


def test_rows_of_independent_times_say_so_swept_or_not(tmp_path):
    network = train(TrainingSpec(epochs=0), tmp_path)
    devices = ["reram_wan2022", "reram_wan2022_as_in_aihwkit"]
    axes = {"times_share": ["one_normal_a_device", "independent"]}
    for study, expected in (
        (Study("as in the file", [network], devices, [1.0]), [True, False]),
        (Study("swept", [network], devices[:1], [1.0], axes=axes), [True, False]),
    ):
        rows = pd.DataFrame({"condition": [t.condition for t in study.trials() if t.chip == 0]})
        assert list(has_trajectories(rows)) == expected, study.name


@pytest.mark.slow
def test_a_lifetime_of_independent_times_is_refused_and_other_tables_are_written():
    followed = make_trials(
        device="reram_wan2022", condition='{"times_share": "one_normal_a_device"}'
    )
    torn = make_trials(device="wan_torn", condition='{"times_share": "independent"}')
    with pytest.raises(ValueError, match="'wan_torn' are independent draws.*no lifetime"):
        lifetime(pd.concat([followed, torn]))
    both = pd.concat([followed, torn], ignore_index=True)
    assert set(study_tables(both)["lifetime"].data["device"]) == {"reram_wan2022"}
    warnings = " ".join(warnings_of(Content(both)))
    assert "Every time of wan_torn is an independent draw" in warnings
    assert {"accuracy", "gain"} <= set(study_tables(torn)) and "lifetime" not in study_tables(torn)


def cmo(t, **axes):
    return conductances("reram_cmo", t, CMO_LEVELS, lowest=-1.0, **axes)


def test_a_cmo_cell_keeps_its_quantile_in_the_relaxation():
    programmed = cmo(0.0)
    places = [
        (cmo(t, read_noise_1f_scale=0.0) - programmed + 0.08900206 * math.log(t))
        / (0.04201137 * math.log(t) + 0.41183342)
        for t in CMO_TIMES_S
    ]
    for later in places[1:]:
        np.testing.assert_allclose(later, places[0], atol=1e-4)


# --- sources, one by one ------------------------------------------------------------------------

SOURCES = ("programming_noise_scale", "drift_scale", "read_noise_1f_scale")


def test_wan_without_noise_is_its_target():
    for t in WAN:
        exact = conductances("reram_wan2022", t, WAN_LEVELS, programming_noise_scale=0.0)
        np.testing.assert_allclose(exact, 40 * np.broadcast_to(column(WAN_LEVELS), exact.shape))


@pytest.mark.parametrize("name", ["pcm_like", "pcm_hermes", "reram_cmo"])
def test_the_programmed_state_has_no_read_noise(name):
    levels = CMO_LEVELS if name == "reram_cmo" else LAWS[name].levels
    lowest = -1.0 if name == "reram_cmo" else 0.0
    states = [
        conductances(name, 0.0, levels, lowest=lowest, read=read, read_noise_1f_scale=scale)
        for read, scale in ((0, 1.0), (1, 1.0), (0, 0.0), (0, 3.0))
    ]
    for other in states[1:]:
        np.testing.assert_array_equal(other, states[0])


@pytest.mark.parametrize("name", ["pcm_like", "pcm_hermes", "reram_wan2022", "reram_cmo"])
def test_a_dead_column_stays_zero(name):
    layer = network(WAN_LEVELS, -1.0)
    with torch.no_grad():
        layer.weight[7] = 0
    chip = program(layer, name)
    for t in (1.0, DAY):
        weights = chip.drift_to(t).weights()[""]
        assert not weights[7].any() and weights[8].all()


@pytest.mark.parametrize("axis", SOURCES)
def test_an_axis_scales_its_source(axis):
    """Twice the scale is twice the error, device by device: the draws are the same."""
    t = 0.0 if axis == "programming_noise_scale" else DAY
    levels = LAWS["pcm_like"].levels
    off = dict.fromkeys(SOURCES, 0.0)
    exact, once, twice = (
        conductances("pcm_like", t, levels, **{**off, axis: scale}) for scale in (0.0, 0.5, 1.0)
    )
    if axis == "drift_scale":
        exact, once, twice = (np.log(g) for g in (exact, once, twice))
    np.testing.assert_allclose(twice - exact, 2 * (once - exact), atol=2e-5)


@pytest.mark.parametrize("device", ["pcm_like", "reram_cmo", "reram_wan2022"])
def test_a_seed_is_a_chip_however_the_weights_lie_in_memory(device):
    """A transposed weight, as of layers that compute x @ W, and its copy row by row."""
    physics = Physics(load_device(device))
    weights = torch.linspace(-1, 1, 12).view(3, 4).T
    held = []
    for own in (weights, weights.contiguous()):
        targets, scale = physics.to_conductances(own)
        states = [physics.program(target, lambda *words: len(words)) for target in targets]
        held.append(
            physics.to_weights([physics.read(s, 86400.0, 0, lambda *w: 7) for s in states], scale)
        )
    torch.testing.assert_close(*held, rtol=0, atol=0)
