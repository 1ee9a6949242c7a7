"""Report: tables and figures for a paper, drawn from ``trials.csv`` alone.

Nothing here imports torch or aihwkit: figures can be redrawn on any machine from the files.
"""

from analog_samson.report.advice import study_advice
from analog_samson.report.cells import (
    arrays_figure,
    clipping_by_layer,
    clipping_figure,
    clipping_map,
    conductance_histogram,
    conductance_map,
    conductances_figure,
)
from analog_samson.report.content import Content
from analog_samson.report.contents import (
    check_tables,
    select,
    study_figures,
    study_tables,
    table_texts,
    write_figures,
    write_tables,
)
from analog_samson.report.diagnostics import (
    layer_sensitivity,
    layers_figure,
    waterfall,
    waterfall_figure,
)
from analog_samson.report.figures import (
    accuracy_figure,
    chips_figure,
    gain_figure,
    lifetime_figure,
    lost_figure,
    save,
    scatter_figure,
    strips_figure,
    yield_figure,
)
from analog_samson.report.items import ITEMS, Item, with_extra
from analog_samson.report.maps import draw_map, map_figure, map_table, study_maps
from analog_samson.report.methods import labelled
from analog_samson.report.networks import (
    sharpness_figure,
    sharpness_vs_robustness,
    training_curve,
    training_curves,
    training_figure,
)
from analog_samson.report.overlay import overlay_figure
from analog_samson.report.overview import overview_table
from analog_samson.report.page import write_report
from analog_samson.report.panels import (
    accuracy_vs_time,
    chip_strips,
    chips_over_time,
    clean_vs_late,
    gain_vs_time,
    lifetimes,
    lost_vs_time,
    yield_curves,
)
from analog_samson.report.requirements import (
    draw_requirements,
    requirements_figure,
    requirements_of,
    requirements_table,
    write_requirements,
)
from analog_samson.report.sensitivity import sensitivity, sensitivity_figure
from analog_samson.report.sweeps import accuracy_vs_axis, axis_figure, heat_figure, heat_map
from analog_samson.report.tables import (
    gain_table,
    grid_table,
    iso_table,
    lifetime_table,
    lost_table,
    planning_table,
    table,
    yield_table,
)
from analog_samson.report.trained import networks_table, noisy_gap_figure, noisy_gap_table
from analog_samson.report.typeset import Table
from analog_samson.report.words import names_in

__all__ = [
    "ITEMS",
    "Content",
    "Item",
    "Table",
    "accuracy_figure",
    "accuracy_vs_axis",
    "accuracy_vs_time",
    "arrays_figure",
    "axis_figure",
    "check_tables",
    "chip_strips",
    "chips_figure",
    "chips_over_time",
    "clean_vs_late",
    "clipping_by_layer",
    "clipping_figure",
    "clipping_map",
    "conductance_histogram",
    "conductance_map",
    "conductances_figure",
    "draw_map",
    "draw_requirements",
    "gain_figure",
    "gain_table",
    "gain_vs_time",
    "grid_table",
    "heat_figure",
    "heat_map",
    "iso_table",
    "labelled",
    "layer_sensitivity",
    "layers_figure",
    "lifetime_figure",
    "lifetime_table",
    "lifetimes",
    "lost_figure",
    "lost_table",
    "lost_vs_time",
    "map_figure",
    "map_table",
    "names_in",
    "networks_table",
    "noisy_gap_figure",
    "noisy_gap_table",
    "overlay_figure",
    "overview_table",
    "planning_table",
    "requirements_figure",
    "requirements_of",
    "requirements_table",
    "save",
    "scatter_figure",
    "select",
    "sensitivity",
    "sensitivity_figure",
    "sharpness_figure",
    "sharpness_vs_robustness",
    "strips_figure",
    "study_advice",
    "study_figures",
    "study_maps",
    "study_tables",
    "table",
    "table_texts",
    "training_curve",
    "training_curves",
    "training_figure",
    "waterfall",
    "waterfall_figure",
    "with_extra",
    "write_figures",
    "write_report",
    "write_requirements",
    "write_tables",
    "yield_curves",
    "yield_figure",
    "yield_table",
]
