"""Claims about datasheets: complete parameters, measured moments, a table that is up to date."""

import importlib.resources
import math

import pytest
from pydantic import BaseModel

from analog_samson.analog.moments import MOMENT_COLUMNS, measure
from analog_samson.devices import device_names, load_device
from analog_samson.devices.describe import device_table, parameters
from analog_samson.report.datasheet import save_datasheet
from analog_samson.times import DAY

FILES = importlib.resources.files("analog_samson.device_configs")


def numbers_of(section: BaseModel, prefix: str = "") -> set[str]:
    found = set()
    for key, value in section:
        if isinstance(value, BaseModel):
            found |= numbers_of(value, f"{prefix}{key}.")
        elif isinstance(value, int | float | tuple):
            found.add(prefix + key)
    return found


@pytest.mark.parametrize("name", device_names())
def test_every_number_of_a_device_is_listed_with_its_source(name):
    device = load_device(name)
    listed = parameters(device).set_index("parameter")
    assert numbers_of(device) <= set(listed.index)
    given = listed[listed["default"] == "required"]
    physical = given[given.index.str.startswith(("noise.", "periphery."))]
    assert (physical["source"] != "").all()
    assert (listed.loc[listed.index.str.endswith("_uS"), "unit"] == "µS").all()


def test_the_table_of_devices_is_up_to_date():
    """Written by: python experiments/describe_device.py --all --table device_configs/DEVICES.md."""
    table = device_table(load_device(name) for name in device_names())
    expected = table.to_markdown(index=False) + "\n"
    assert (FILES / "DEVICES.md").read_text(encoding="utf-8") == expected


def test_moments_are_those_of_the_published_formula():
    """n = 4000: a spread is known to 1.1 %; five of its errors are allowed."""
    moments = measure(load_device("pcm_like"), [DAY], n=4000)
    assert tuple(moments.columns) == MOMENT_COLUMNS
    rows = moments[moments["quantity"] == "programming"].set_index("g_uS")
    expected = 0.26348 + 1.9650 * 0.5 - 1.1731 * 0.25
    assert rows.loc[12.5, "spread"] == pytest.approx(expected, rel=5 * 0.0112)
    drift = moments[moments["quantity"] == "drift"].set_index("g_uS")
    expected = math.exp(-0.049 * math.log((DAY + 20) / 20))
    assert drift.loc[25.0, "mean"] == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("name", device_names())
def test_moments_span_the_conductances_of_every_device(name):
    """Also where the first device of a cell reaches its largest conductance early."""
    noise = load_device(name).noise
    ends = getattr(noise, "g_min_uS", 0.0), getattr(noise, "g_max_uS", 1.0)
    moments = measure(load_device(name), n=20, n_levels=5)
    for quantity, rows in moments.groupby("quantity"):
        assert rows["mean"].notna().all() and (rows["spread"] >= 0).all(), quantity
        for _, one in rows.groupby("t_inference_s", dropna=False):
            if not quantity.startswith("weight"):
                assert one["g_uS"].is_monotonic_increasing and one["g_uS"].is_unique
                assert (one["g_uS"].iloc[0], one["g_uS"].iloc[-1]) == pytest.approx(ends)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["pcm_like", "reram_wan2022", "sonos_agrawal2022_crosssim_3_2", "uniform"]
)
def test_a_datasheet_is_a_table_and_a_page(name, tmp_path):
    device = load_device(name)
    paths = save_datasheet(device, measure(device, n=50, n_levels=5), tmp_path / "new")
    assert [path.name for path in paths] == [
        f"device_{name}{suffix}" for suffix in (".csv", ".pdf", ".png")
    ]
    assert all(path.stat().st_size > 500 for path in paths)


def test_a_datasheet_at_a_time_without_data_is_refused():
    with pytest.raises(ValueError, match="known only at"):
        measure(load_device("reram_wan2022"), [3600.0])
