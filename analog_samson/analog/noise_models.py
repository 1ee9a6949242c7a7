"""Devices as aihwkit's noise models: its own, with the right constants, and those it lacks."""

from typing import Any

from analog_samson.devices import Device, Hermes, PCMLike, ReRAMCMO, ReRAMWan2022


def noise_model(device: Device) -> Any:
    """Build the aihwkit noise model of a device."""
    from aihwkit.inference import PCMLikeNoiseModel, ReRamCMONoiseModel, ReRamWan2022NoiseModel
    from aihwkit.inference.noise.hermes import HermesNoiseModel

    noise = device.noise
    if isinstance(noise, ReRAMWan2022):
        model = ReRamWan2022NoiseModel(
            g_max=noise.g_max_uS, noise_scale=noise.programming_noise_scale
        )
        # The constructor stores the fit's reference under another name than the model reads.
        model.coeff_g_max_reference = noise.g_max_reference_uS
        return model
    if isinstance(noise, ReRAMCMO):
        # A float such as 0.02 is no key of aihwkit's table and would silently mean 0.2 %.
        accepted = 0.2 if noise.acceptance_percent == 0.2 else 2
        return ReRamCMONoiseModel(
            g_max=noise.g_max_uS,
            g_min=noise.g_min_uS,
            acceptance_range=accepted,
            **_scales(noise),
        )
    if isinstance(noise, Hermes):
        return HermesNoiseModel(
            num_devices=noise.devices_per_conductance,
            g_max=noise.g_max_uS,
            t_0=noise.t_0_s,
            t_read=noise.t_read_s,
            **_scales(noise),
        )
    if isinstance(noise, PCMLike):
        return PCMLikeNoiseModel(
            g_max=noise.g_max_uS, t_0=noise.t_0_s, t_read=noise.t_read_s, **_scales(noise)
        )
    return PCMLikeNoiseModel(g_max=noise.g_max_uS)  # Ideal: only its converter is used


def _scales(noise: PCMLike | Hermes | ReRAMCMO) -> dict[str, float]:
    return {
        "prog_noise_scale": noise.programming_noise_scale,
        "read_noise_scale": noise.read_noise_1f_scale,
        "drift_scale": noise.drift_scale,
    }
