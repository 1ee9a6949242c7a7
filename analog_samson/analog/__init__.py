"""The door to aihwkit: devices become configurations, layers become tiles, noise gets its seeds.

Noise models are aihwkit's own objects, called at the level of conductances under seeds of ours
(:class:`Physics`); the forward pass is aihwkit's tile (:class:`TiledNetwork`). Nothing
else in the package but the compiled engine knows aihwkit.
"""

from analog_samson.analog.effects import Effect, effects_of
from analog_samson.analog.physics import DeviceState, Physics, Seeds, seeded
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
from analog_samson.analog.versions import WORKING_PAIRS, check_versions

__all__ = [
    "TILE_BLOCK",
    "WORKING_PAIRS",
    "DeviceState",
    "Effect",
    "Physics",
    "Seeds",
    "Tile",
    "TiledNetwork",
    "TilesOfGroups",
    "check_input_ranges",
    "check_versions",
    "draws_from_the_clock",
    "effects_of",
    "seeded",
    "tile_configuration",
    "why_not_on_tiles",
]
