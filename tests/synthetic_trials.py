"""Trials with known means and variance components, for tests of statistics and figures."""

import numpy as np
import pandas as pd

from analog_samson.results import COLUMNS
from analog_samson.times import DAY, HOUR, MONTH, YEAR


def make_trials(
    means=None,
    *,
    seed=0,
    n_networks=5,
    n_chips=10,
    n_reads=1,
    std_networks=0.010,
    std_chips=0.005,
    std_reads=0.0,
    std_shared=0.0,
    slope=0.01,
    times_s=(0.0, 1.0, HOUR, DAY, MONTH, YEAR),
    device="pcm_like",
    measured_to_s=2e6,
    n_images_per_chip=1_000_000,
    shared_chips=False,
    **constants,
):
    """Accuracy = mean - slope log10(t + 1) + network + shared chip effect + chip + read."""
    means = {"sgd": 0.90, "samson rho=0.5": 0.93} if means is None else means
    random = np.random.default_rng(seed)
    rows = []
    shared = std_shared * random.standard_normal((n_networks, n_chips))
    if shared_chips:
        shared = np.repeat(shared[:1], n_networks, axis=0)
    for name, mean in means.items():
        method, _, strength = name.partition(" ")
        networks = std_networks * random.standard_normal(n_networks)
        chips = std_chips * random.standard_normal((n_networks, n_chips))
        reads = std_reads * random.standard_normal((n_networks, n_chips, len(times_s), n_reads))
        for network in range(n_networks):
            for chip in range(n_chips):
                for k, t in enumerate(times_s):
                    for read in range(n_reads):
                        score = mean - slope * np.log10(t + 1) + networks[network]
                        score += chips[network, chip] + shared[network, chip]
                        score += reads[network, chip, k, read]
                        rows.append(
                            {
                                "study": "synthetic",
                                "chip_id": f"{device}-{method}-{strength}-{network}-{chip}",
                                "dataset": "digits",
                                "model": "mlp",
                                "method": method,
                                "strength": strength,
                                "training_seed": network,
                                "checkpoint": f"{method}-{strength}-{network}",
                                "device": device,
                                "compensation": "global",
                                "engine": "aihwkit",
                                "precision": "fp32",
                                "condition": "{}",
                                "chip": chip,
                                "programming_seed": chip if shared_chips else 1000 * network + chip,
                                "t_inference_s": t,
                                "read": read,
                                "n_correct": int(
                                    np.clip(round(score * n_images_per_chip), 0, n_images_per_chip)
                                ),
                                "n_images_per_chip": n_images_per_chip,
                                "n_correct_digital": int((mean + 0.01) * n_images_per_chip),
                                "n_test": n_images_per_chip,
                                "n_correct_digital_test": int((mean + 0.01) * n_images_per_chip),
                                "analog_share": 0.998,
                                "alpha": 1.0 + 0.02 * np.log10(t + 1),
                                "extrapolated": t > measured_to_s,
                                "reproducible": True,
                            }
                            | constants
                        )
    trials = pd.DataFrame(rows, columns=list(COLUMNS))
    least = (trials["n_correct"] - trials["n_correct_digital"]).abs()
    trials["n_changed"] = (least + n_images_per_chip) // 2
    return trials


def trials_with(
    accuracies, *, digital=0.95, n_images=1_000_000, n_test=None, times_s=(1.0,), **columns
):
    """Rows of chips with these accuracies, by method: shape (networks, chips), one time."""
    parts = []
    for method, table in accuracies.items():
        table = np.asarray(table)
        part = make_trials({method: 0.5}, n_networks=len(table), n_chips=table.shape[1],
                           times_s=times_s, n_images_per_chip=n_images)  # fmt: skip
        part["n_correct"] = np.round(table.ravel() * n_images).astype(int)
        clean = digital[method] if isinstance(digital, dict) else digital
        clean = np.broadcast_to(clean, len(table))
        of_row = np.repeat(clean, table.shape[1])
        part["n_correct_digital"] = np.round(of_row * n_images).astype(int)
        part["n_correct_digital_test"] = np.round(of_row * (n_test or n_images)).astype(int)
        part["n_changed"] = (part["n_correct"] - part["n_correct_digital"]).abs()
        parts.append(part.assign(n_test=n_test or n_images, **columns))
    rows = pd.concat(parts, ignore_index=True)
    kinds = rows["device"] + rows["compensation"] + rows["condition"]
    return rows.assign(chip_id=rows["chip_id"] + kinds)
