"""Fit of the laws of a device file to retention measurements.

Every cell has its own programmed conductance and one drift parameter: the exponent, slope or change
of a law of ``retention``. A read multiplies by 1 + Q sqrt(ln((t + t_0 + t_read) / (2 t_read))) n,
with n standard normal at every read. Mean and standard deviation of the programming error and of
the drift parameter, and Q, are estimated at every target by least squares and moments; the variance
that read noise adds to the estimates of a cell is subtracted.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from analog_samson.devices.retention import LawName, Shape, estimate

LAWS = (
    "programming_offset_uS",
    "programming_spread_uS",
    "nu_mean",
    "nu_spread",
    "read_spread_relative",
)
"""Tables of a fit of the power law."""

_PARAMETERS: dict[LawName, str] = {
    "power_law": "nu_{}",
    "log_linear": "slope_{}_uS",
    "stretched_exponential": "change_{}_uS",
}


@dataclass(frozen=True)
class Fit:
    """Fitted laws at the targets.

    Attributes:
        laws: One row per target; columns target_uS, n (cells), the tables, and each with "_low" and
            "_high", the ends of its confidence interval at the given constants of the shape.
        shape: The law of retention and the constants that all cells share.
        t_read_s: Duration of a read [s].
        last_s: Time of the last measurement [s].
        r_squared: Fraction of the variance over time, within cells, that drift explains: of ln g
            for the power law, of g relative to its mean for others.
        p_normal: p-value of the residuals of all reads being normal (Kolmogorov-Smirnov).
        confidence: Confidence level of the intervals.
    """

    laws: pd.DataFrame
    shape: Shape
    t_read_s: float
    last_s: float
    r_squared: float
    p_normal: float
    confidence: float

    @property
    def t_0_s(self) -> float:
        """First read after programming [s]."""
        return self.shape.t_0_s

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the fitted tables, as in device files."""
        return _tables_of(self.shape.law)


def spreads(found: Fit, rows: pd.DataFrame, *, n: int = 20_000, seed: int = 0) -> pd.DataFrame:
    """Spread of simulated cells against measured ones, at every target and time.

    Start and drift parameter of a simulated cell are drawn independently, so that a ratio far from
    1 says that those of the measured cells are not.

    Args:
        found: The fit.
        rows: The measurements that were fitted.
        n: Simulated cells of a target: a spread has the relative error 1 / sqrt(2 n).
        seed: Seed of their draws.

    Returns:
        Columns target_uS, time_s, measured_uS and simulated_uS (standard deviations of the cells
        that conduct at all times) and ratio.
    """
    draws = np.random.default_rng(seed)
    shape, lines = found.shape, []
    _, offset, spread, mean, width, q = "target_uS", *found.tables
    for law in found.laws.to_dict("records"):
        g_prog = law["target_uS"] + law[offset] + law[spread] * draws.standard_normal(n)
        parameter = law[mean] + law[width] * draws.standard_normal(n)
        own = rows[rows["target_uS"] == law["target_uS"]]
        own = own[own.groupby("device")["conductance_uS"].transform("min") > 0]
        for time_s, alike in own.groupby("time_s"):
            t = np.array([float(str(time_s))])
            change = parameter * shape.function(t)
            g = g_prog * np.exp(change) if shape.is_logarithmic else g_prog + change
            noise = law[q] * np.sqrt(
                np.log((t + shape.t_0_s + found.t_read_s) / (2 * found.t_read_s))
            )
            simulated = float((g.clip(min=0) * (1 + noise * draws.standard_normal(n))).std())
            measured = float(alike["conductance_uS"].std())
            lines.append((law["target_uS"], t[0], measured, simulated))
    table = pd.DataFrame(lines, columns=["target_uS", "time_s", "measured_uS", "simulated_uS"])
    return table.assign(ratio=table["simulated_uS"] / table["measured_uS"])


_LEAST_SHARE = 0.05
"""Read noise is weighted as that of at least this share of a cell's mean conductance: our choice;
a fit may cross 0."""


def _tables_of(law: LawName) -> tuple[str, str, str, str, str]:
    parameter = _PARAMETERS[law]
    return *LAWS[:2], parameter.format("mean"), parameter.format("spread"), LAWS[-1]


def fit(
    rows: pd.DataFrame,
    *,
    t_0_s: float | None = None,
    t_read_s: float,
    confidence: float = 0.95,
    law: LawName = "power_law",
    shape: Shape | None = None,
) -> Fit:
    """Fit programming error, drift and read noise at every target.

    Args:
        rows: Measurements, as from ``read_measurements``; at least 3 times per cell, 8 cells
            per target and 2 targets.
        t_0_s: First read after programming [s]; time counts from the end of programming. None
            estimates it (see ``retention.estimate``).
        t_read_s: Duration of a read [s].
        confidence: Confidence level of the intervals.
        law: Law of retention; ``retention.compare`` chooses one by cross-validation.
        shape: The law with its constants, instead of law and t_0_s.

    Returns:
        The laws with intervals and goodness of fit.

    Raises:
        ValueError: If there are too few times, cells or targets, or the duration of a read is not
            between 0 and the first read.
    """
    shape = estimate(rows, law, t_0_s) if shape is None else shape
    first_read_s = float(rows["time_s"].min()) + shape.t_0_s
    if not 0 < t_read_s < first_read_s:
        raise ValueError(
            f"The duration of a read is above 0 and below the time of the first read after "
            f"programming, t_0 + t = {first_read_s:.4g} s; got {t_read_s!r} s."
        )
    if not 0 < confidence < 1:
        raise ValueError(f"A confidence lies between 0 and 1; got {confidence!r}.")
    fits, residuals, total = [], [], 0.0
    for target, group in rows.groupby("target_uS"):
        fitted, z, variance = _fit_target(float(str(target)), group, shape, t_read_s, confidence)
        fits.append(fitted)
        residuals.append(z)
        total += variance
    if len(fits) < 2:
        raise ValueError(f"The measurements have {len(fits)} target; at least 2 are needed.")
    unexplained = sum(float(np.square(z["raw"]).sum()) for z in residuals)
    normal = np.concatenate([z["standard"] for z in residuals])
    return Fit(
        laws=pd.DataFrame(fits),
        shape=shape,
        t_read_s=t_read_s,
        last_s=float(rows["time_s"].max()),
        r_squared=max(0.0, 1 - unexplained / total) if total else 0.0,
        p_normal=float(stats.kstest(normal, "norm").pvalue),
        confidence=confidence,
    )


def _fit_target(
    target: float, group: pd.DataFrame, shape: Shape, t_read_s: float, confidence: float
) -> tuple[dict[str, float], dict[str, np.ndarray], float]:
    devices = [one for _, one in group.groupby("device") if (one["conductance_uS"] > 0).all()]
    short = [one for one in devices if len(one) < 3]
    if len(devices) < 8 or short:
        raise ValueError(
            f"Target {target:g} µS has {len(devices)} conducting cells, {len(short)} of them "
            "with fewer than 3 times; at least 8 cells with 3 times each are needed."
        )
    intercepts, slopes, slope_factors, level_factors = [], [], [], []
    raw, standard_parts, weights_sum, freedom, total = [], [], 0.0, 0, 0.0
    for one in devices:
        t, g = one["time_s"].to_numpy(dtype=float), one["conductance_uS"].to_numpy(dtype=float)
        x, y = shape.function(t), np.log(g) if shape.is_logarithmic else g
        plain = np.stack([np.ones_like(x), x], axis=1)
        if np.linalg.matrix_rank(plain) < 2:
            raise ValueError(
                f"Device {one['device'].iloc[0]!r} has no times at which the {shape.words}, "
                "differs; give another law, or measure the cell at more times."
            )
        # spread of y, in units of Q
        spread = np.sqrt(np.log((t + shape.t_0_s + t_read_s) / (2 * t_read_s)))
        if not shape.is_logarithmic:
            first_guess, *_ = np.linalg.lstsq(plain / spread[:, None], y / spread, rcond=None)
            spread = spread * np.maximum(plain @ first_guess, _LEAST_SHARE * y.mean())
        design = plain / spread[:, None]
        solution, *_ = np.linalg.lstsq(design, y / spread, rcond=None)
        covariance = np.linalg.inv(design.T @ design)
        residual = y / spread - design @ solution
        intercepts.append(solution[0])
        slopes.append(solution[1])
        level_factors.append(covariance[0, 0])
        slope_factors.append(covariance[1, 1])
        weights_sum += float(np.square(residual).sum())
        freedom += len(x) - 2
        leverage = np.einsum("ij,jk,ik->i", design, covariance, design)
        # one standardised residual per cell: residuals of one cell are dependent
        middle = len(x) // 2
        standard_parts.append(residual[middle] / np.sqrt(max(1e-12, 1 - leverage[middle])))
        unit = 1.0 if shape.is_logarithmic else y.mean()
        raw.append((y - (design @ solution) * spread) / unit)
        total += float(np.square((y - y.mean()) / unit).sum())
    q_squared = weights_sum / freedom
    q = float(np.sqrt(q_squared))
    n = len(devices)
    level_noise = q_squared * np.array(level_factors)
    programmed, noise_uS = np.array(intercepts), level_noise
    if shape.is_logarithmic:
        # E[exp(estimate)] is g_prog exp(variance / 2): corrects for the read noise of the estimate
        programmed = np.exp(np.array(intercepts) - level_noise / 2)
        noise_uS = programmed**2 * level_noise
    error, excess = programmed - target, float(np.mean(noise_uS))
    slope_noise = float(q_squared * np.mean(slope_factors))
    law: dict[str, float] = {"target_uS": target, "n": n}
    tables = _tables_of(shape.law)
    law |= _moments(tables[0], tables[1], error, excess, confidence)
    law |= _moments(tables[2], tables[3], np.array(slopes), slope_noise, confidence)
    low, high = _interval_of_variance(q_squared, freedom, confidence)
    law |= {
        "read_spread_relative": q,
        "read_spread_relative_low": float(np.sqrt(low)),
        "read_spread_relative_high": float(np.sqrt(high)),
    }
    standard = np.array(standard_parts) / max(q, 1e-12)
    return law, {"raw": np.concatenate(raw), "standard": standard}, total


def _moments(
    mean_key: str, spread_key: str, values: np.ndarray, noise: float, confidence: float
) -> dict[str, float]:
    n = len(values)
    mean, variance = float(values.mean()), float(values.var(ddof=1))
    half = stats.t.ppf((1 + confidence) / 2, n - 1) * np.sqrt(variance / n)
    low, high = (
        max(0.0, end - noise) for end in _interval_of_variance(variance, n - 1, confidence)
    )
    return {
        mean_key: mean,
        f"{mean_key}_low": mean - half,
        f"{mean_key}_high": mean + half,
        spread_key: float(np.sqrt(max(0.0, variance - noise))),
        f"{spread_key}_low": float(np.sqrt(low)),
        f"{spread_key}_high": float(np.sqrt(high)),
    }


def _interval_of_variance(variance: float, freedom: int, confidence: float) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    low, high = stats.chi2.ppf([1 - tail, tail], freedom)
    return variance * freedom / low, variance * freedom / high
