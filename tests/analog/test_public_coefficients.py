"""Coefficients of published models: the installed packages have those that our formulas state.

aihwkit is always there; CrossSim's are compared where it is installed (the package ``simulator``).
A failure names what a new version changed: our device files, their formulas in
``test_every_device.py`` and ``NUMERICS_VERSION`` then have to follow.
"""

import warnings
from importlib import metadata
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from aihwkit.inference.noise.custom import StateIndependentNoiseModel
from aihwkit.inference.noise.hermes import HermesNoiseModel
from aihwkit.inference.noise.pcm import PCMLikeNoiseModel
from aihwkit.inference.noise.reram import ReRamCMONoiseModel, ReRamWan2022NoiseModel

from analog_samson.analog import currents_of
from analog_samson.analog.noise_models import noise_model
from analog_samson.devices import load_device

DAY = 86400.0

PUBLISHED = {
    "pcm_like": (
        PCMLikeNoiseModel,
        {},
        {
            "prog_coeff": [0.26348, 1.9650, -1.1731],
            "prog_coeff_g_max_reference": 25.0,
            "t_0": 20.0,
            "t_read": 250e-9,
            "g_max": 25.0,
        },
    ),
    "pcm_hermes": (
        HermesNoiseModel,
        {"num_devices": 2},
        {
            "prog_coeff": [0.16603222, 4.71806468, -8.48101252, 4.68961419],
            "prog_coeff_g_max_reference": 20.7,
            "t_0": 300.0,
            "t_read": 512e-9,
            "g_max": 20.7,
        },
    ),
    "pcm_hermes_single": (
        HermesNoiseModel,
        {"num_devices": 1},
        {
            "prog_coeff": [0.15781817, 2.32443916, -2.16310839, 0.68841818],
            "prog_coeff_g_max_reference": 10.35,
            "t_0": 200.0,
            "t_read": 512e-9,
            "g_max": 10.35,
        },
    ),
    "pcm_state_independent": (
        StateIndependentNoiseModel,
        {},
        {
            "prog_coeff": [0.2, 0.0, 0.0],
            "drift_nu_mean": 0.1,
            "drift_nu_std": 0.05,
            "t_0": 20.0,
            "t_read": 250e-9,
            "g_max": 25.0,
        },
    ),
    "reram_wan2022": (
        ReRamWan2022NoiseModel,
        {"g_max": 40.0},
        {
            "coeff_dic": {
                1.0: [0.348, 16.030, -43.853, 45.393, -16.815],
                DAY: [0.701, 22.086, -50.773, 47.095, -16.458],
                2 * DAY: [0.782, 20.274, -43.507, 37.062, -11.934],
            },
            "g_max": 40.0,
        },
    ),
    "reram_cmo": (
        ReRamCMONoiseModel,
        {},
        {
            "coeff_dict": {0.2: [0.00081107, 0.00106879], 2: [0.0112185391, 0.01129027418]},
            "decay_dict": {"mean": [-0.08900206], "std": [0.04201137, 0.41183342]},
            "read_dict": {"K": 0.0277316483, "t_read": 1e-6},
        },
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_installed_aihwkit_has_the_published_coefficients(name):
    build, options, expected = PUBLISHED[name]
    model = build(**options)
    for key, ours in expected.items():
        theirs = getattr(model, key)
        assert theirs == ours, (
            f"aihwkit {metadata.version('aihwkit')} has {build.__name__}.{key} = {theirs}; our "
            f"copy, behind {name}.toml, is {ours}"
        )


@pytest.mark.parametrize("name", PUBLISHED)
def test_device_files_state_the_constants_of_the_installed_aihwkit(name):
    build, options, _ = PUBLISHED[name]
    model, noise = build(**options), load_device(name).noise
    keys = {"t_0": "t_0_s", "t_read": "t_read_s", "g_max": "g_max_uS", "g_min": "g_min_uS"}
    for theirs, ours in keys.items():
        if hasattr(noise, ours) and hasattr(model, theirs):
            expected = pytest.approx(getattr(model, theirs), rel=1e-6)
            assert getattr(noise, ours) == expected, (name, ours)


def clamp_line(u: torch.Tensor, slope: float, offset: float, low: float, high: float):
    return (slope * u.log() + offset).clamp(low, high)


def of_pcm(u):
    q = (0.0088 / u.pow(0.65).clamp(min=1e-3)).clamp(max=0.2)
    return (
        clamp_line(u, -0.0155, 0.0244, 0.049, 0.1),
        clamp_line(u, -0.0125, -0.0059, 0.008, 0.045),
        q,
    )


def of_hermes(n):
    def law(u):
        mean = torch.where(
            u < 0.0945,
            clamp_line(u, -0.0387, -0.0182, 0.072, 0.13),
            -0.0436 * u**2 - 0.0126 * u + 0.0736,
        )
        if n == 2:
            low = clamp_line(u, -0.0117, -0.0057, 0.0091, 0.04)
            spread = torch.where(u < 0.3055, low, -0.0118 * u**2 + 0.0093 * u + 0.0073)
            low = clamp_line(u, -0.0117, -0.0069, 0.015, 0.04)
            cubic = 0.0069 * u**3 - 0.028 * u**2 + 0.0211 * u + 0.0123
            return mean, spread, torch.where(u < 0.16, low, cubic)
        low = clamp_line(u, -0.0120, -0.0023, 0.0124, 0.04)
        spread = torch.where(u < 0.3039, low, -0.0165 * u**2 + 0.0116 * u + 0.0104)
        low = clamp_line(u, -0.0078, 0.0038, 0.0179, 0.04)
        cubic = 0.0664 * u**3 - 0.1352 * u**2 + 0.0768 * u + 0.0088
        return mean, spread, torch.where(u < 0.1591, low, cubic)

    return law


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")
@pytest.mark.parametrize(
    ("name", "law"),
    [("pcm_like", of_pcm), ("pcm_hermes", of_hermes(2)), ("pcm_hermes_single", of_hermes(1))],
)
def test_laws_of_drift_and_reads_are_those_of_the_installed_aihwkit(name, law):
    """With the same random numbers the model gives the formula, for 50 conductances."""
    build, options, _ = PUBLISHED[name]
    model = build(**options)
    u = torch.linspace(0.02, 1, 50)
    g, t = u * model.g_max, 3600.0
    mean, spread, q = law(u)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        z = torch.randn_like(u)
        torch.manual_seed(0)
        exponents = model.generate_drift_coefficients(g.clone())
        torch.manual_seed(0)
        seen = model.apply_drift_noise_to_conductance(g.clone(), torch.zeros_like(g), t)
    torch.testing.assert_close(exponents, (mean + spread * z).abs(), rtol=1e-4, atol=1e-5)
    accumulated = torch.log(torch.tensor((t + model.t_0 + model.t_read) / (2 * model.t_read)))
    expected = (g + g * q * accumulated.sqrt() * z).clamp(min=0)
    torch.testing.assert_close(seen, expected, rtol=1e-4, atol=1e-4)


@pytest.fixture
def crosssim(monkeypatch):
    """CrossSim's classes of SONOS and Milo's ReRAM, with 1 for each of their random numbers."""
    modules = [
        pytest.importorskip(f"simulator.devices.custom.{name}") for name in ("SONOS", "RRAM_Milo")
    ]
    ones = SimpleNamespace(normal=lambda scale, size: scale * np.ones(size))
    for module in modules:
        monkeypatch.setattr(module, "xp", SimpleNamespace(**{**vars(np), "random": ones}))
    sonos, milo = modules[0].SONOS, modules[1].RRAMMilo
    return SimpleNamespace(sonos=sonos.__new__(sonos), milo=milo.__new__(milo))


@pytest.mark.parametrize("day", [0, 1, 2, 3, 4, 5, 2.5])
def test_sonos_has_the_coefficients_of_the_installed_crosssim(crosssim, day):
    noise = load_device("sonos_agrawal2022").noise
    current = np.linspace(0.0, 1600.0, 50)
    theirs, a, b = crosssim.sonos._interpolate_drift(current.copy(), day)
    table = np.array(noise.shift_powers_nA)
    powers = [np.interp(day, noise.days, table[:, k]) for k in range(table.shape[1])]
    shift = np.polynomial.polynomial.polyval(current, powers) if day else 0.0
    np.testing.assert_allclose(theirs, current + shift, rtol=1e-9)
    assert a == pytest.approx(np.interp(day, noise.days, noise.spread_A_nA), rel=1e-9)
    assert b == pytest.approx(np.interp(day, noise.days, noise.spread_B_nA), rel=1e-9)


def test_milo_has_the_spread_of_the_installed_crosssim(crosssim):
    noise, cell = load_device("reram_milo2021").noise, crosssim.milo
    cell.Gmin, cell.Gmax, cell.Gmin_norm, cell.Grange_norm = 50e-6, 225e-6, 0.0, 1.0
    level = np.linspace(0.0, 1.0, 50)
    spread = (cell.programming_error(level.copy()) - level) * 175
    expected = np.polynomial.polynomial.polyval(50 + 175 * level, noise.spread_powers_uS)
    np.testing.assert_allclose(spread, expected, rtol=1e-6)


def test_read_noise_of_sonos_is_that_of_the_installed_crosssim(crosssim):
    device, cell = load_device("sonos_agrawal2022_read_noise"), crosssim.sonos
    cell.Imin, cell.Imax, cell.Gmin_norm, cell.Grange_norm = 0.0, 1600.0, 0.0, 1.0
    level = np.linspace(0.0, 1.0, 50)
    spread = cell.read_noise(level.copy()) - level
    currents = currents_of(device)
    variance = currents.variance(torch.from_numpy(level)).sqrt()
    np.testing.assert_allclose(variance, spread, rtol=1e-5, atol=1e-7)


def test_the_curve_of_milo_is_that_of_the_installed_crosssim(crosssim):
    """The current of a pair, in units of the largest weight times the largest input."""
    currents, cell = currents_of(load_device("reram_milo2021_nonlinear")), crosssim.milo
    cell.p_NL2 = np.array([0.0001388, 0.001541, 0.005711, 0.007063])
    cell.p_NL3 = np.array([8.8710e-05, 6.7919e-04, 1.2968e-03])
    cell.Gmin, cell.Gmax, cell.Vread = 50e-6, 225e-6, 0.5
    cell.Gmin_norm, cell.Grange_norm = 50 / 225, 175 / 225
    weights, x = np.linspace(0.0, 1.0, 50), np.linspace(-1.0, 1.0, 50)
    ours = weights * x
    for power, added in currents.added(torch.from_numpy(weights)):
        ours = ours + added.numpy() * x**power
    on, off = (cell.Gmin_norm + cell.Grange_norm * one for one in (weights, 0 * weights))
    theirs = cell.nonlinear_current(on, x) - cell.nonlinear_current(off, x)
    np.testing.assert_allclose(ours, theirs / cell.Grange_norm, atol=1e-9)
    assert np.abs(ours - weights * x).max() > 0.02


def test_warnings_about_the_code_of_aihwkit_do_not_reach_users():
    with warnings.catch_warnings(record=True) as said:
        warnings.resetwarnings()
        model = noise_model(load_device("pcm_hermes"))
        model.generate_drift_coefficients(torch.linspace(1.0, 50.0, 20))
    assert [str(one.message) for one in said] == []
