"""Devices as aihwkit's noise models: its own, with the right constants, and those it lacks."""

from typing import Any

from analog_samson.devices import (
    CustomDriftPCMLike,
    Device,
    Hermes,
    Ideal,
    PCMLike,
    PolynomialError,
    ReRAMCMO,
    ReRAMWan2022,
    Resampled,
    Sonos,
    StateIndependent,
    Tabulated,
    WeightNoise,
)


def noise_model(device: Device) -> Any:
    """Build the aihwkit noise model of a device.

    Args:
        device: The device; its mapping says how weights become conductances.

    Returns:
        An object of a subclass of aihwkit's ``BaseNoiseModel``.
    """
    from analog_samson.analog import own_models

    noise = device.noise
    if isinstance(noise, ReRAMCMO):
        return _cmo(device, noise)
    if isinstance(noise, WeightNoise):
        return own_models.WeightNoiseModel(noise)
    converter = _pairs(device, noise)
    if isinstance(noise, ReRAMWan2022):
        return _wan(noise, converter)
    if isinstance(noise, PolynomialError):
        return own_models.PolynomialErrorNoiseModel(noise, converter)
    if isinstance(noise, Sonos):
        return own_models.SonosNoiseModel(noise, converter)
    if isinstance(noise, Resampled):
        return own_models.ResampledNoiseModel(noise, converter)
    if isinstance(noise, Tabulated):
        return own_models.TabulatedNoiseModel(noise, converter)
    return _power_law(noise, converter)


def _power_law(
    noise: PCMLike | CustomDriftPCMLike | Hermes | StateIndependent | Ideal, converter: Any
) -> Any:
    from aihwkit.inference import PCMLikeNoiseModel
    from aihwkit.inference.noise.custom import StateIndependentNoiseModel
    from aihwkit.inference.noise.hermes import HermesNoiseModel
    from aihwkit.inference.noise.pcm import CustomDriftPCMLikeNoiseModel

    if isinstance(noise, Ideal):  # only its converter is used
        return PCMLikeNoiseModel(g_converter=converter)
    constants = {"g_converter": converter, "t_0": noise.t_0_s, "t_read": noise.t_read_s}
    constants |= _scales(noise)
    if isinstance(noise, Hermes):
        devices = noise.devices_per_conductance
        return HermesNoiseModel(num_devices=devices, g_max=noise.g_max_uS, **constants)
    if isinstance(noise, StateIndependent):
        return StateIndependentNoiseModel(
            prog_coeff=[noise.programming_spread_uS, 0.0, 0.0],
            drift_nu_mean=noise.nu_mean,
            drift_nu_std=noise.nu_spread,
            **constants,
        )
    if isinstance(noise, CustomDriftPCMLike):
        table = {
            "g_lst": list(noise.nu_at_uS),
            "nu_mean_lst": list(noise.nu_mean),
            "nu_std_lst": list(noise.nu_spread),
        }
        return CustomDriftPCMLikeNoiseModel(table, **constants)
    return PCMLikeNoiseModel(**constants)


def _wan(noise: ReRAMWan2022, converter: Any) -> Any:
    from aihwkit.inference import ReRamWan2022NoiseModel

    model = ReRamWan2022NoiseModel(g_converter=converter, noise_scale=noise.programming_noise_scale)
    # The constructor stores the fit's reference under another name than the model reads.
    model.coeff_g_max_reference = noise.g_max_reference_uS
    return model


def _cmo(device: Device, noise: ReRAMCMO) -> Any:
    from aihwkit.inference import ReRamCMONoiseModel

    from analog_samson.analog import own_models

    # A float such as 0.02 is no key of aihwkit's table and would silently mean 0.2 %.
    accepted = 0.2 if noise.acceptance_percent == 0.2 else 2
    model = ReRamCMONoiseModel(
        g_max=noise.g_max_uS, g_min=noise.g_min_uS, acceptance_range=accepted, **_scales(noise)
    )
    one_a_weight = own_models.SingleDeviceConverter
    with_reference = own_models.ReferenceColumnConverter
    converter = with_reference if device.mapping.reference_column else one_a_weight
    model.g_converter = converter(noise.g_max_uS, noise.g_min_uS)
    return model


def _pairs(device: Device, noise: Any) -> Any:
    from aihwkit.inference.converter.conductance import (
        CustomPairConductanceConverter,
        NPairConductanceConverter,
        SinglePairConductanceConverter,
    )

    limits = {"g_max": noise.g_max_uS, "g_min": getattr(noise, "g_min_uS", 0.0)}
    mapping = device.mapping
    significances = list(mapping.pair_significances)
    if mapping.pair_tables_uS:
        tables = [list(table) for table in mapping.pair_tables_uS]
        try:
            return CustomPairConductanceConverter(significances, tables, **limits)
        except ArithmeticError:
            raise ValueError(
                f"Device {device.name!r}: mapping.pair_tables_uS does not give back the weights it "
                "is given; the weighted differences G+ - G- must be proportional to the weight."
            ) from None
    if significances != [1.0]:
        return NPairConductanceConverter(significances, **limits)
    return SinglePairConductanceConverter(**limits)


def _scales(noise: Any) -> dict[str, float]:
    return {
        "prog_noise_scale": noise.programming_noise_scale,
        "read_noise_scale": noise.read_noise_1f_scale,
        "drift_scale": noise.drift_scale,
    }
