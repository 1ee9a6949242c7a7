"""Claims about what devices do to conductances, against the published formulas written out here.

Every spread is tested by the exact distribution of its statistic: normalised errors are standard
normal, so their sum of squares is chi-square with n degrees of freedom and their mean is normal.
n = 3880 a level; seeds are fixed; every test below uses a false-alarm rate of ``ALPHA`` a
statistic, and the whole file makes fewer than 1000 of them, so that it would fail by chance with a
probability under 1e-6.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from analog_samson import load_device, program
from analog_samson.times import DAY, HOUR, YEAR

ALPHA = 1e-9
TIMES_S = (HOUR, DAY, YEAR)
N_COLUMNS, N_ROWS = 40, 486  # one array; row 0 holds the largest weight of every column
N_LEVELS = 5
PER_LEVEL = (N_ROWS - 1) // N_LEVELS * N_COLUMNS


@dataclass(frozen=True)
class Formulas:
    """The published laws of a power-law device, u = g / g_max, conductances in µS."""

    g_max: float
    t_0: float
    t_read: float
    programming: tuple[float, ...]  # ascending powers of u, µS
    levels: tuple[float, ...]  # high enough that no device is clipped at 0

    def sigma_programming(self, u):
        return sum(c * u**power for power, c in enumerate(self.programming))


@dataclass(frozen=True)
class Pcm(Formulas):
    """Nandakumar et al. 2019."""

    def nu(self, u):
        mean = np.clip(-0.0155 * np.log(u) + 0.0244, 0.049, 0.1)
        return mean, np.clip(-0.0125 * np.log(u) - 0.0059, 0.008, 0.045)

    def q(self, u):
        return np.minimum(0.0088 / u**0.65, 0.2)


@dataclass(frozen=True)
class HermesTwo(Formulas):
    """HERMES, two devices a conductance; the levels lie above 0.3055, the fits' low branches."""

    def nu(self, u):
        return -0.0436 * u**2 - 0.0126 * u + 0.0736, -0.0118 * u**2 + 0.0093 * u + 0.0073

    def q(self, u):
        return 0.0069 * u**3 - 0.028 * u**2 + 0.0211 * u + 0.0123


LAWS: dict[str, Formulas] = {
    "pcm_like": Pcm(25.0, 20.0, 250e-9, (0.26348, 1.9650, -1.1731), (0.2, 0.4, 0.6, 0.8, 1.0)),
    "pcm_hermes": HermesTwo(
        20.7,
        300.0,
        512e-9,
        (0.16603222, 4.71806468, -8.48101252, 4.68961419),
        (0.35, 0.5, 0.65, 0.8, 1.0),
    ),
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


def as_normal(values, mean, deviation):
    """Values of |N(mean, deviation)| mapped to the standard normal of equal probability."""
    return stats.norm.ppf(stats.foldnorm.cdf(values, mean / deviation, scale=deviation))


def column(values):
    return np.array(values)[:, None]


def exponents(name, t, law, **options):
    start = conductances(name, 0.0, law.levels, read_noise_1f_scale=0.0, **options)
    aged = conductances(name, t, law.levels, read_noise_1f_scale=0.0, **options)
    return -np.log(aged / start) / math.log((t + law.t_0) / law.t_0)


# --- power-law devices --------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAWS)
def test_the_spread_of_programming_is_the_published_one(name):
    law = LAWS[name]
    u = column(law.levels)
    programmed = conductances(name, 0.0, law.levels)
    assert_standard_normal((programmed - u * law.g_max) / law.sigma_programming(u))


@pytest.mark.parametrize("t", TIMES_S)
@pytest.mark.parametrize("name", LAWS)
def test_drift_is_the_power_law_with_exponents_of_the_published_distribution(name, t):
    law = LAWS[name]
    mean, deviation = law.nu(column(law.levels))
    assert_standard_normal(as_normal(exponents(name, t, law), mean, deviation))


@pytest.mark.parametrize("t", TIMES_S)
@pytest.mark.parametrize("name", LAWS)
def test_read_noise_accumulates_as_one_over_f(name, t):
    law = LAWS[name]
    programmed = conductances(name, 0.0, law.levels)
    drifted = conductances(name, t, law.levels, read_noise_1f_scale=0.0)
    observed = conductances(name, t, law.levels)
    accumulated = math.sqrt(math.log((t + law.t_0 + law.t_read) / (2 * law.t_read)))
    spread = drifted * law.q(programmed / law.g_max) * accumulated
    assert_standard_normal((observed - drifted) / spread)


@pytest.mark.parametrize("name", LAWS)
def test_a_devices_exponent_is_the_same_at_every_time(name):
    law = LAWS[name]
    early, late = (exponents(name, t, law).ravel() for t in (HOUR, YEAR))
    assert np.corrcoef(early, late)[0, 1] > 1 - 1e-6
    np.testing.assert_allclose(early, late, atol=1e-5)


@pytest.mark.parametrize("name", LAWS)
def test_the_second_device_of_a_pair_keeps_its_own_state(name):
    """Its target is 0: half of its errors are clipped there, the others are half-normal."""
    law = LAWS[name]
    programmed = conductances(name, 0.0, law.levels, device_of_pair=1, read_noise_1f_scale=0.0)
    positive = programmed[programmed > 0]
    n = programmed.size
    assert stats.binomtest(len(positive), n, 0.5).pvalue > ALPHA
    squares = np.square(positive / law.programming[0]).sum()
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


@pytest.mark.parametrize("t", WAN)
def test_wan_spreads_around_the_target_as_measured_at_each_time(t):
    u = column(WAN_LEVELS)
    sigma = sum(c * u**power for power, c in enumerate(WAN[t]))
    observed = conductances("reram_wan2022", t, WAN_LEVELS)
    assert_standard_normal((observed - 40.0 * u) / sigma)


def test_wans_gain_common_to_a_tile_is_one():
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


def test_a_wan_device_keeps_its_place_in_the_distribution():
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


def cmo(t, **axes):
    return conductances("reram_cmo", t, CMO_LEVELS, lowest=-1.0, **axes)


def test_cmo_is_programmed_to_within_two_per_cent():
    g = 9.0 + (column(CMO_LEVELS) + 1) / 2 * (88.2 - 9.0)
    assert_standard_normal((cmo(0.0) - g) / (0.0112185391 + 0.01129027418 * g))


@pytest.mark.parametrize("t", CMO_TIMES_S)
def test_cmo_relaxes_logarithmically_and_reads_with_one_over_f(t):
    programmed, relaxed, observed = cmo(0.0), cmo(t, read_noise_1f_scale=0.0), cmo(t)
    mean, deviation = -0.08900206 * math.log(t), 0.04201137 * math.log(t) + 0.41183342
    assert_standard_normal((relaxed - programmed - mean) / deviation)
    accumulated = math.sqrt(math.log((t + 1e-6) / 2e-6))
    assert_standard_normal((observed - relaxed) / (0.0277316483 * np.log10(relaxed) * accumulated))


def test_a_cmo_device_keeps_its_place_in_the_relaxation():
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


@dataclass(frozen=True)
class Seen:
    """Errors with one source on (or none): programmed, aged, aged read again."""

    programmed: np.ndarray
    aged: np.ndarray
    again: np.ndarray


def alone(name, on):
    axes = {source: float(source == on) for source in SOURCES}
    options = (
        {"levels": CMO_LEVELS, "lowest": -1.0}
        if name == "reram_cmo"
        else {"levels": LAWS[name].levels}
    )
    target = conductances(name, 0.0, **options, **dict.fromkeys(SOURCES, 0.0))
    return Seen(
        *(
            conductances(name, t, read=read, **options, **axes) - target
            for t, read in ((0.0, 0), (DAY, 0), (DAY, 1))
        )
    )


@pytest.mark.parametrize("name", [*LAWS, "reram_cmo"])
def test_each_source_acts_alone_when_the_others_are_zero(name):
    nothing = alone(name, None)
    assert not nothing.programmed.any() and not nothing.aged.any() and not nothing.again.any()

    written = alone(name, "programming_noise_scale")
    assert written.programmed.all(), "every device has an error"
    np.testing.assert_array_equal(written.aged, written.programmed)
    np.testing.assert_array_equal(written.again, written.programmed)

    drifting = alone(name, "drift_scale")
    assert not drifting.programmed.any()
    assert drifting.aged.mean() < 0, "conductance falls"
    np.testing.assert_array_equal(drifting.again, drifting.aged)

    reading = alone(name, "read_noise_1f_scale")
    assert not reading.programmed.any(), "the programmed state is not read"
    assert reading.aged.all() and (reading.aged != reading.again).mean() > 0.99


def test_wan_without_noise_is_its_target():
    for t in WAN:
        exact = conductances("reram_wan2022", t, WAN_LEVELS, programming_noise_scale=0.0)
        np.testing.assert_allclose(exact, 40 * np.broadcast_to(column(WAN_LEVELS), exact.shape))


@pytest.mark.parametrize("name", ["pcm_like", "pcm_hermes", "reram_cmo"])
def test_the_programmed_state_holds_no_read_noise(name):
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
