"""Claims about the rest of the catalogue: published fits, generic errors, pairs, faults.

Statistics as in ``test_physics``: exact distributions, fixed seeds, n = 3880 a level, a false-alarm
rate of 1e-9 each and fewer than 100 of them in this file.
"""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from analog_samson import analog, load_device, program
from analog_samson.analog import Physics
from analog_samson.devices import Device, validated
from analog_samson.streams import derive_seed
from analog_samson.times import DAY, HOUR, YEAR

ALPHA = 1e-9
N_COLUMNS, PER_COLUMN = 40, 97
N = N_COLUMNS * PER_COLUMN
LEVELS = (0.3, 0.5, 0.7, 0.85, 1.0)


def network(levels=LEVELS) -> nn.Linear:
    """An array that holds every level N times; row 0 is the largest weight of each column."""
    layer = nn.Linear(1 + len(levels) * PER_COLUMN, N_COLUMNS, bias=False)
    row = np.concatenate([[1.0], np.repeat(levels, PER_COLUMN)])
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(row, dtype=torch.float32).expand(N_COLUMNS, -1))
    return layer


def by_level(values: torch.Tensor, n_levels: int = 5) -> np.ndarray:
    rows = values.double().numpy()[:, 1:]
    return rows.reshape(N_COLUMNS, n_levels, -1).transpose(1, 0, 2).reshape(n_levels, -1)


def chip_of(device, levels=LEVELS, seed=1):
    return program(network(levels), device, seed=seed)


def conductances(device, t, levels=LEVELS, seed=1, of_pair=0):
    found = chip_of(device, levels, seed).drift_to(t).conductances()[""][0][of_pair]
    return by_level(found, len(levels))


def assert_standard_normal(z):
    for level, row in enumerate(np.atleast_2d(z)):
        n = row.size
        p_mean = 2 * stats.norm.sf(abs(row.mean()) * math.sqrt(n))
        squares = np.square(row).sum()
        p_spread = 2 * min(stats.chi2.sf(squares, n), stats.chi2.cdf(squares, n))
        assert p_mean > ALPHA, f"level {level}: mean {row.mean():.4f}"
        assert p_spread > ALPHA, f"level {level}: spread {math.sqrt(squares / n):.4f}"


def with_noise(name: str, **changes) -> Device:
    content = load_device(name).model_dump()
    content["noise"].update(changes)
    return validated(content, name)


# --- published fits -----------------------------------------------------------------------------


def test_the_two_published_fits_of_pcm_programming_agree():
    """Within 2 % of each other at 25 and 12.5 µS, 9 % apart at 0: spreads at zero noise error."""
    model = {
        name: analog.Physics(load_device(name)).model for name in ("pcm_like", "pcm_joshi2020")
    }

    def spread(name, g):
        # the same draws for both models and far from the clip at 0: their ratio is exact
        torch.manual_seed(0)
        target = torch.full((2000,), g, dtype=torch.float64)
        error = model[name].apply_programming_noise_to_conductance(target.clone()) - target
        return float(error[error > -g].abs().max())

    ratio = {g: spread("pcm_joshi2020", g) / spread("pcm_like", g) for g in (0.0, 12.5, 25.0)}
    assert ratio[25.0] == pytest.approx(1, abs=0.02)
    assert ratio[12.5] == pytest.approx(1, abs=0.02)
    assert ratio[0.0] == pytest.approx(0.28638599 / 0.26348, rel=1e-6), "1.087"


def test_sonos_is_that_of_the_newest_crosssim_without_a_version():
    """The mean shift at 1500 nA after a day: -66.1 nA in CrossSim 3.1, -10.2 nA in 3.2."""
    newest = load_device("sonos_agrawal2022")
    assert newest == load_device("sonos_agrawal2022_crosssim_3_2")
    for version, expected in (("3_1", -66.05), ("3_2", -10.25)):
        noise = load_device(f"sonos_agrawal2022_crosssim_{version}").noise
        shift = sum(c * 1500.0**k for k, c in enumerate(noise.shift_powers_nA[1]))
        assert shift == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(("change", "message"), [
    ({"days": [0.0, 1.0, 3.0, 2.0, 4.0, 5.0]}, r"must ascend"),
    ({"shift_powers_nA": [[0.0]]}, r"shift_powers_nA has days of .* coefficients; give all"),
])  # fmt: skip
def test_sonos_tables_that_are_not_one_row_a_day_are_refused(change, message):
    noise = json.loads(load_device("sonos_agrawal2022_crosssim_3_1").model_dump_json())["noise"]
    if "shift_powers_nA" in change:
        change = {"shift_powers_nA": [[0.0], *noise["shift_powers_nA"][1:]]}
    with pytest.raises(ValueError, match=message):
        type(load_device("sonos_agrawal2022_crosssim_3_1").noise)(**{**noise, **change})


def test_sonos_is_refused_after_the_last_measured_day():
    with pytest.raises(ValueError, match=r"no data at 518400 s \(6 d\); use times up to .*\(5 d\)"):
        load_device("sonos_agrawal2022").check_time(6 * DAY)


# --- aihwkit's other models ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "pcm_hermes_as_in_aihwkit",
        "pcm_state_independent_as_in_aihwkit",
        "reram_wan2022_as_in_aihwkit",
        "reram_cmo_as_in_aihwkit",
    ],
)
def test_as_in_aihwkit_is_a_plain_tile_with_aihwkits_defaults(name):
    """aihwkit's class with its own defaults, seeded by the documented stream: equal weights."""
    from aihwkit.inference import ReRamCMONoiseModel, ReRamWan2022NoiseModel
    from aihwkit.inference.noise.custom import StateIndependentNoiseModel
    from aihwkit.inference.noise.hermes import HermesNoiseModel
    from aihwkit.nn import AnalogLinear

    defaults = {
        "pcm_hermes_as_in_aihwkit": HermesNoiseModel,
        "pcm_state_independent_as_in_aihwkit": StateIndependentNoiseModel,
        "reram_wan2022_as_in_aihwkit": ReRamWan2022NoiseModel,
        "reram_cmo_as_in_aihwkit": ReRamCMONoiseModel,
    }
    torch.manual_seed(0)
    layer = nn.Linear(30, 7)
    images = torch.rand(20, 30)
    device = load_device(name)
    chip = program(layer, device, seed=4, calibration=images)
    configuration = analog.tile_configuration(device)
    configuration.noise_model = defaults[name]()
    (tile,) = AnalogLinear.from_digital(layer, configuration).eval().analog_tiles()
    tile.set_input_range(float(images.abs().max()))
    torch.manual_seed(derive_seed(4, "", 0, "programming"))
    tile.program_weights()
    for t in device.times.valid_times_s or (1.0, DAY):
        torch.manual_seed(derive_seed(4, "", 0, "read", t, 0))
        tile.drift_weights(t)
        torch.testing.assert_close(chip.drift_to(t).weights()[""], tile.get_weights()[0])


@pytest.mark.parametrize("t", [0.0, DAY])
def test_ideal_cells_on_aihwkits_path_hold_the_weights(t):
    """As in the first stages of a waterfall, whose errors are those of the periphery alone."""
    content = load_device("pcm_like_as_in_aihwkit").model_dump()
    content["noise"] = load_device("ideal").noise.model_dump()
    content["drift_compensation"] = {"kind": "none"}
    layer = nn.Linear(30, 7)
    held = program(layer, validated(content, "ideal"), seed=1).drift_to(t).weights()[""]
    torch.testing.assert_close(held, layer.weight.detach())


# --- generic errors -----------------------------------------------------------------------------


def test_gaussian_max_by_filter_and_by_layer_differ_where_filters_do():
    layer = network()
    with torch.no_grad():
        layer.weight[0] *= 10
    for name, largest in (("gaussian_max", 1.0), ("gaussian_max_layer", 10.0)):
        device = load_device(name).with_axes({"sigma": 0.05})
        error = program(layer, device).weights()[""] - layer.weight
        assert_standard_normal((error[1:].detach() / (0.05 * largest)).double().numpy().ravel())


# --- from weights to devices --------------------------------------------------------------------

QUIET = ("programming_noise_scale", "read_noise_1f_scale", "drift_scale")


@pytest.mark.parametrize(
    "name", ["pcm_dual_pair", "pcm_n_pairs", "pcm_custom_pair", "reram_cmo_reference_column"]
)
def test_without_noise_every_cell_reproduces_its_weight(name):
    torch.manual_seed(0)
    layer = nn.Linear(30, 7)
    quiet = load_device(name).with_axes(dict.fromkeys(QUIET, 0.0))
    for t in (0.0, YEAR):
        weights = program(layer, quiet).drift_to(t).weights()[""]
        torch.testing.assert_close(weights, layer.weight.detach(), rtol=1e-4, atol=1e-5)


def test_more_pairs_average_their_errors():
    """Four equal pairs, filled in turn: a full weight has a quarter of g_max's error twice over.

    Largest weight: four devices at g_max and four at 0. Its error relative to a single pair's is
    1/2, for variances add and the scale is four times as large.
    """
    full = network((1.0,))
    spreads = [
        float((program(full, name, seed=2).weights()[""] - 1).std())
        for name in ("pcm_n_pairs", "pcm_like")
    ]
    # n = 3920: the ratio of two spreads has a relative error of 0.016; five of them are allowed
    assert spreads[0] / spreads[1] == pytest.approx(0.5, rel=5 * 0.016)


def test_a_reference_column_removes_the_common_shift():
    torch.manual_seed(0)
    layer = nn.Linear(400, 50, bias=False)
    largest = float(layer.weight.detach().abs().max())

    def shift(name):
        chip = program(layer, load_device(name).with_axes({"read_noise_1f_scale": 0.0}), seed=1)
        before = chip.weights()[""]
        return float((chip.drift_to(DAY).weights()[""] - before).mean()) / largest

    # closed form: -0.089 ln t of the 79.2 µS that span twice the largest weight
    assert shift("reram_cmo") == pytest.approx(-0.08900206 * math.log(DAY) / 39.6, rel=0.15)
    # the reference's own relaxation, 400 devices: spread 0.89 / 39.6 / 20, times five
    assert abs(shift("reram_cmo_reference_column")) < 5 * 0.89 / 39.6 / 20


def test_tables_that_are_no_mapping_are_refused():
    content = load_device("pcm_custom_pair").model_dump()
    content["mapping"]["pair_tables_uS"] = [[0.0, 20.0, 25.0], [25.0, 20.0, 0.0]]
    program(network(), validated(content, "mine"))
    content["mapping"]["pair_tables_uS"] = [[0.0, 1.0, 2.0, 20.0, 25.0], [0.0] * 5]
    with pytest.raises(ValueError, match="does not reproduce the weights"):
        validated(content, "mine")
    straight = [25.0 * i / 8 for i in range(9)]
    for wrong in range(9):  # aihwkit tests the weights -1, -0.5, 0, 0.5 and 1, every other entry
        table = [*straight]
        table[wrong] += 1.0 if wrong < 8 else -1.0
        content["mapping"]["pair_tables_uS"] = [table, straight[::-1]]
        with pytest.raises(ValueError, match=f"at every entry: entry {wrong + 1} of 9 is .* µS"):
            validated(content, "mine")
    for none in ([[5.0], [5.0]], [[5.0], [0.0]], [[5.0] * 3] * 2):
        content["mapping"]["pair_tables_uS"] = none
        with pytest.raises(ValueError, match="does not reproduce the weights"):
            validated(content, "mine")
    content["mapping"]["pair_tables_uS"] = [straight, straight[::-1]]
    weight = torch.linspace(-1, 1, 33)[None]
    physics = Physics(validated(content, "mine"))
    cells, scale = physics.to_conductances(weight)
    torch.testing.assert_close(physics.to_weights(cells, scale), weight)
    content["mapping"]["pair_tables_uS"] = [[0.0, 40.0], [40.0, 0.0]]
    with pytest.raises(ValueError, match=r"mine: .*pair_tables_uS spans 0.0 to 40.0.*25.0"):
        validated(content, "mine")


# --- stuck devices ------------------------------------------------------------------------------


def stuck(low=0.0, high=0.0, t=0.0, of_pair=0, seed=1):
    device = load_device("pcm_like").with_axes({"stuck_low": low, "stuck_high": high})
    return conductances(device, t, seed=seed, of_pair=of_pair).ravel()


def test_the_fraction_of_stuck_cells_is_the_one_of_the_device():
    held_low, held_high = stuck(low=0.1) == 0, stuck(high=0.1) == 25
    n = held_low.size
    for held in (held_low, held_high):
        assert stats.binomtest(int(held.sum()), n, 0.1).pvalue > ALPHA
    assert not (held_low & held_high).any()
    both = stuck(low=0.1, high=0.1)
    np.testing.assert_array_equal(both == 0, held_low)
    np.testing.assert_array_equal(both == 25, held_high)


def test_the_faults_of_a_chip_do_not_change_over_time():
    maps = [stuck(high=0.2, t=t) == 25 for t in (0.0, HOUR, YEAR)]
    for later in maps[1:]:
        np.testing.assert_array_equal(later, maps[0])
    assert ((stuck(high=0.2, seed=2) == 25) != maps[0]).any()


def test_cells_that_are_stuck_at_a_smaller_fraction_are_stuck_at_a_larger_one():
    few, many = stuck(low=0.05) == 0, stuck(low=0.2) == 0
    assert many[few].all() and many.sum() > few.sum()


def test_faults_do_not_change_other_cells():
    for t, of_pair in itertools.product((0.0, YEAR), (0, 1)):
        sound, faulty = stuck(t=t, of_pair=of_pair), stuck(high=0.2, t=t, of_pair=of_pair)
        free = faulty != 25
        np.testing.assert_array_equal(faulty[free], sound[free])


def test_faults_act_alone_on_a_device_without_noise():
    axes = dict.fromkeys(QUIET, 0.0) | {"stuck_low": 0.1}
    found = conductances(load_device("pcm_like").with_axes(axes), YEAR)
    target = np.broadcast_to(25.0 * np.array(LEVELS)[:, None], found.shape)
    held = found == 0
    np.testing.assert_allclose(found[~held], target[~held], rtol=1e-6)
    assert held.any()


def test_impossible_faults_are_refused():
    device = load_device("pcm_like")
    with pytest.raises(ValueError, match=r"stuck_low = 1.5 .*less than or equal to 1"):
        device.with_axes({"stuck_low": 1.5})
    with pytest.raises(ValueError, match="sum must be at most 1"):
        device.with_axes({"stuck_low": 0.6, "stuck_high": 0.6})
    with pytest.raises(ValueError, match="single cells"):
        load_device("pcm_like_as_in_aihwkit").with_axes({"stuck_low": 0.1})


# --- layers that differ -------------------------------------------------------------------------


def with_layers(name, *overrides):
    return validated({**load_device(name).model_dump(), "layers": overrides}, "mine")


@pytest.fixture(scope="module")
def three_layers():
    torch.manual_seed(0)
    parts = {"first": nn.Linear(64, 32), "middle": nn.Linear(32, 32), "head": nn.Linear(32, 10)}
    model = nn.Sequential()
    for layer, module in parts.items():
        model.add_module(layer, module)
    return model.eval()


@pytest.mark.parametrize("engine", ["aihwkit", "compiled"])
def test_layers_named_by_a_pattern_stay_digital(three_layers, engine):
    digital = [{"pattern": layer, "digital": True} for layer in ("first", "he*")]
    device = with_layers("pcm_like", *digital)
    images = torch.rand(8, 64)
    chip = program(three_layers, device, calibration=images, engine=engine)
    assert list(chip.weights()) == ["middle"]
    assert device.digest != load_device("pcm_like").digest


def test_the_head_can_be_of_another_device(three_layers):
    """The same layer of the same chip number: the head is HERMES, the others are untouched."""
    hermes = load_device("pcm_hermes").noise.model_dump()
    chips = {
        "plain": program(three_layers, "pcm_like", seed=1),
        "hermes": program(three_layers, "pcm_hermes", seed=1),
        "mixed": program(
            three_layers, with_layers("pcm_like", {"pattern": "head", "noise": hermes}), seed=1
        ),
    }
    weights = {name: chip.drift_to(DAY).weights() for name, chip in chips.items()}
    torch.testing.assert_close(weights["mixed"]["head"], weights["hermes"]["head"])
    for layer in ("first", "middle"):
        torch.testing.assert_close(weights["mixed"][layer], weights["plain"][layer])


def test_single_keys_of_a_layer_can_differ(three_layers):
    off = dict.fromkeys(QUIET, 0.0)
    chip = program(three_layers, with_layers("pcm_like", {"pattern": "m*", "noise": off}))
    weights = chip.drift_to(YEAR).weights()
    torch.testing.assert_close(weights["middle"], three_layers.middle.weight.detach())
    assert (weights["head"] != three_layers.head.weight).all()


def test_an_override_that_matches_no_layer_is_refused(three_layers):
    typo = with_layers("pcm_like", {"pattern": "haed", "noise": {"drift_scale": 0.0}})
    with pytest.raises(ValueError, match="'haed' matches no layer of the network.*'head'"):
        program(three_layers, typo, seed=0)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ({"pattern": "head"}, "'head' must either be digital or change"),
        ({"pattern": "head", "noise": {"drift_scal": 0.0}}, "did you mean 'drift_scale'"),
        ({"pattern": "head", "noise": {"drift_scale": -1.0}}, "greater than or equal to 0"),
        ({"pattern": "head", "periphery": {"adc_bits": 4}}, "unknown key"),
    ],
)
def test_a_wrong_override_is_one_sentence(override, words):
    with pytest.raises(ValueError, match=rf"mine: .*{words}") as caught:
        with_layers("pcm_like", override)
    assert "\n" not in str(caught.value)


# --- compensation -------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [HOUR, DAY, YEAR])
def test_global_compensation_is_the_inverse_of_the_mean_drift(t):
    """All weights at g_max: alpha = 1 / E[T^-nu], nu normal: exp(mean L - variance L^2 / 2).

    n = 19440 exponents of spread 0.008 that are never negative (6 spreads from 0): alpha has a
    relative error of 0.008 L / sqrt(n); 6.1 of them are exceeded with a probability of 1e-9.
    """
    axes = {"programming_noise_scale": 0.0, "read_noise_1f_scale": 0.0}
    layer = network((1.0,) * 5)
    alpha = program(layer, load_device("pcm_like").with_axes(axes), seed=3).drift_to(t)
    log = math.log((t + 20) / 20)
    expected = math.exp(0.049 * log - (0.008 * log) ** 2 / 2)
    found = float(alpha.compensation()[""].mean())
    assert found == pytest.approx(expected, rel=6.1 * 0.008 * log / math.sqrt(N * 5))


def test_a_noisy_read_out_biases_global_compensation():
    """aihwkit's read-out adds output noise under the mean of magnitudes: alpha comes out low."""
    torch.manual_seed(0)
    layer, images = nn.Linear(200, 100, bias=False), torch.rand(10, 200)
    device = load_device("pcm_like_as_in_aihwkit")
    alphas = []
    for noise in (0.0, 0.06, 0.2):
        chip = program(layer, device.with_axes({"output_noise": noise}), calibration=images)
        alphas.append(float(chip.drift_to(30 * DAY).compensation()[""].mean()))
    assert alphas[0] > alphas[1] > alphas[2] > 1


def test_one_layer_of_independent_times_is_recorded_in_every_row():
    wan = load_device("reram_wan2022").model_dump()
    assert validated(wan, "mine").always_recorded_axes == {}
    wan["layers"] = [{"pattern": "head", "noise": {"times_share": "independent"}}]
    assert validated(wan, "mine").always_recorded_axes == {"times_share": "independent"}
    wan["layers"] = [{"pattern": "head", "digital": True}]
    assert validated(wan, "mine").always_recorded_axes == {}


# --- an error of weights in pieces --------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"splits": [52.5, 60.0]}, "spread_powers has 2 polynomials and splits 2 entries"),
        ({"splits": [0.5]}, r"splits = \[0.5\] must ascend, from above zero_below = 0.6 to below"),
        ({"splits": [180.0]}, "to below full_scale = 180.0"),
        ({"full_scale": 0.0}, "noise.full_scale = 0.0 is not allowed"),
        ({"spread_powers": []}, "spread_powers"),
        ({"g_max_uS": 25.0}, "unknown key 'noise.g_max_uS'"),
    ],
)
def test_wrong_pieces_are_one_sentence(changes, words):
    with pytest.raises(ValueError, match=words) as caught:
        with_noise("pcm_buchel2025", **changes)
    assert "\n" not in str(caught.value)


def test_weights_in_pieces_are_scaled_by_output_row_and_input_block():
    """Two blocks of 512 rows: each has the error of its own largest weight; n = 512, 1e-9."""
    weights = torch.full((1, 1024), 0.5)
    weights[0, 512:] = 0.05
    layer = torch.nn.Linear(1024, 1, bias=False)
    layer.weight.data.copy_(weights)
    chip = program(layer, load_device("pcm_buchel2025"))
    error = (chip.weights()[""][0] - weights[0]).double().view(2, 512)
    powers = [1.2329755395573392e-05, -0.003054993405157235, 0.2453487119885723, 2.110295720240385]
    at_180 = float(np.polyval(powers, 180.0))
    for block, largest in zip(error, (0.5, 0.05), strict=True):
        squares = float((block / (at_180 / 180 * largest)).square().sum())
        assert 1e-9 < stats.chi2.sf(squares, 512) < 1 - 1e-9
