"""Construction of noise models: the conductance converter, and the models of aihwkit.

Each function is named by a section (``NoiseSection.built_by``) and builds one of aihwkit's models
with the constants of the section; models that aihwkit lacks are in ``own_models``. A model whose
``is_elementwise`` is true draws with ``randn_like`` only, one number per cell: small arrays are
programmed and read in one call.
"""

import warnings
from typing import Any

from analog_samson.devices import (
    CustomDriftPCMLike,
    Device,
    Hermes,
    PCMLike,
    ReRAMWan2022,
    StateIndependent,
)
from analog_samson.importing import import_callable


def noise_model(device: Device) -> Any:
    """Build the noise model of a device.

    Args:
        device: The device; its mapping defines the conversion of weights to conductances.

    Returns:
        An object of a subclass of aihwkit's ``BaseNoiseModel``.

    Raises:
        ValueError: If the object that the section names cannot be imported or is no noise model.
    """
    from aihwkit.inference.noise.base import BaseNoiseModel

    section = device.noise
    build = import_callable(section.built_by, "noise model")
    is_other_class = isinstance(build, type) and not issubclass(build, BaseNoiseModel)
    model = None if is_other_class else build(section, _converter(device))
    if not isinstance(model, BaseNoiseModel):
        given = "is a class" if is_other_class else f"returned a {type(model).__name__}"
        raise ValueError(
            f"{section.built_by!r} {given}; the noise model of {section.model!r} must be derived "
            "from aihwkit's BaseNoiseModel."
        )
    for method in ("apply_programming_noise_to_conductance", "apply_drift_noise_to_conductance"):
        if getattr(type(model), method) is getattr(BaseNoiseModel, method):
            raise ValueError(
                f"{section.built_by!r} has no method {method!r}, which every noise model defines."
            )
    return model


def pcm_like(noise: PCMLike, converter: Any) -> Any:
    """Aihwkit's ``PCMLikeNoiseModel``."""
    from aihwkit.inference import PCMLikeNoiseModel

    model = PCMLikeNoiseModel(**_power_law(noise, converter))
    model.is_elementwise = True
    return model


def custom_drift(noise: CustomDriftPCMLike, converter: Any) -> Any:
    """Aihwkit's ``CustomDriftPCMLikeNoiseModel``."""
    from aihwkit.inference.noise.pcm import CustomDriftPCMLikeNoiseModel

    table = {
        "g_lst": list(noise.nu_at_uS),
        "nu_mean_lst": list(noise.nu_mean),
        "nu_std_lst": list(noise.nu_spread),
    }
    return CustomDriftPCMLikeNoiseModel(table, **_power_law(noise, converter))


def hermes(noise: Hermes, converter: Any) -> Any:
    """Aihwkit's ``HermesNoiseModel``, whose indexing by lists torch warns of, not for users."""
    from aihwkit.inference.noise.hermes import HermesNoiseModel

    lists = "Using a non-tuple sequence"
    warnings.filterwarnings("ignore", lists, UserWarning, module=r"aihwkit\.inference\.noise")
    devices = noise.devices_per_conductance
    given = _power_law(noise, converter)
    return HermesNoiseModel(num_devices=devices, g_max=noise.g_max_uS, **given)


def state_independent(noise: StateIndependent, converter: Any) -> Any:
    """Aihwkit's ``StateIndependentNoiseModel``."""
    from aihwkit.inference.noise.custom import StateIndependentNoiseModel

    return StateIndependentNoiseModel(
        prog_coeff=[noise.programming_spread_uS, 0.0, 0.0],
        drift_nu_mean=noise.nu_mean,
        drift_nu_std=noise.nu_spread,
        **_power_law(noise, converter),
    )


def wan2022(noise: ReRAMWan2022, converter: Any) -> Any:
    """Aihwkit's ``ReRamWan2022NoiseModel``."""
    from aihwkit.inference import ReRamWan2022NoiseModel

    model = ReRamWan2022NoiseModel(g_converter=converter, noise_scale=noise.programming_noise_scale)
    # The constructor stores the reference of the fit under a name that the model does not read.
    model.coeff_g_max_reference = noise.g_max_reference_uS
    return model


def _power_law(
    noise: PCMLike | CustomDriftPCMLike | Hermes | StateIndependent, converter: Any
) -> dict[str, Any]:
    return {
        "g_converter": converter,
        "t_0": noise.t_0_s,
        "t_read": noise.t_read_s,
        "prog_noise_scale": noise.programming_noise_scale,
        "read_noise_scale": noise.read_noise_1f_scale,
        "drift_scale": noise.drift_scale,
    }


def _converter(device: Device) -> Any:
    """The converter between weights of an array and conductances."""
    from analog_samson.analog import own_models

    low, high = device.noise.conductance_range
    if device.noise.cells == "signed":
        return own_models.SignedConverter()
    if device.noise.cells == "single":
        one_a_weight = own_models.SingleCellConverter
        with_reference = own_models.ReferenceColumnConverter
        return (with_reference if device.mapping.reference_column else one_a_weight)(high, low)
    return _pairs(device, {"g_max": high, "g_min": low})


def _pairs(device: Device, limits: dict[str, float]) -> Any:
    from aihwkit.inference.converter.conductance import (
        CustomPairConductanceConverter,
        NPairConductanceConverter,
        SinglePairConductanceConverter,
    )

    mapping = device.mapping
    significances = list(mapping.pair_significances)
    if mapping.pair_tables_uS:
        tables = [list(table) for table in mapping.pair_tables_uS]  # checked entry by entry
        return CustomPairConductanceConverter(
            significances, tables, **limits, invertibility_test=False
        )
    if significances != [1.0]:
        return NPairConductanceConverter(significances, **limits)
    return SinglePairConductanceConverter(**limits)
