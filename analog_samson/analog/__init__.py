"""The interface to aihwkit: configurations, tiles, and noise models with random seeds.

Noise models are aihwkit's objects, called at conductance level with seeds of this package
(:class:`Physics`); the forward pass is that of aihwkit's tile (:class:`TiledNetwork`). Besides this
package only the compiled engine imports aihwkit.
"""

from analog_samson.analog.currents import CellCurrents, currents_of, largest_of
from analog_samson.analog.effects import Effect, effects_of
from analog_samson.analog.from_aihwkit import (
    Imported,
    LeftOut,
    device_from,
    digital_from,
    left_out_of,
    load_into,
    read_file,
)
from analog_samson.analog.physics import CellState, Physics, Seeds, seeded
from analog_samson.analog.tiles import (
    TILE_BLOCK,
    Tile,
    TiledNetwork,
    TilesOfGroups,
    check_input_ranges,
    draws_from_the_clock,
    tile_configuration,
    why_not_on_tiles,
)
from analog_samson.analog.to_aihwkit import (
    as_converted,
    hand_over,
    not_in_ageing,
    on_tiles,
    rpu_config_of,
)
from analog_samson.analog.versions import WORKING_PAIRS, check_versions
from analog_samson.deprecated import old_names

__all__ = [
    "TILE_BLOCK",
    "WORKING_PAIRS",
    "CellCurrents",
    "CellState",
    "Effect",
    "Imported",
    "LeftOut",
    "Physics",
    "Seeds",
    "Tile",
    "TiledNetwork",
    "TilesOfGroups",
    "as_converted",
    "check_input_ranges",
    "check_versions",
    "currents_of",
    "device_from",
    "digital_from",
    "draws_from_the_clock",
    "effects_of",
    "hand_over",
    "largest_of",
    "left_out_of",
    "load_into",
    "not_in_ageing",
    "on_tiles",
    "read_file",
    "rpu_config_of",
    "seeded",
    "tile_configuration",
    "why_not_on_tiles",
]

__getattr__ = old_names(__name__, {"DeviceState": "CellState"})
