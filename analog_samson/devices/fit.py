"""Fit of the laws of a device file to retention measurements.

Model: g(t) = g_prog ((t + t_0) / t_0)^-nu (1 + Q sqrt(ln((t + t_0 + t_read) / (2 t_read))) n).
Every cell has its own g_prog and nu, and n is standard normal at every read. Mean and standard
deviation of the programming error and of nu, and Q, are estimated at every target by least squares
and moments; the variance that read noise adds to the estimates of a cell is subtracted.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import optimize, stats

LAWS = (
    "programming_offset_uS",
    "programming_spread_uS",
    "nu_mean",
    "nu_spread",
    "read_spread_relative",
)


@dataclass(frozen=True)
class Fit:
    """Fitted laws at the targets.

    Attributes:
        laws: One row per target; columns target_uS, n (cells), the laws, and each with "_low" and
            "_high", the ends of its confidence interval.
        t_0_s: First read after programming [s].
        t_read_s: Duration of a read [s].
        last_s: Time of the last measurement [s].
        r_squared: Fraction of the variance of ln g over time, within cells, that drift explains.
        p_normal: p-value of the residuals of all reads being normal (Kolmogorov-Smirnov).
        confidence: Confidence level of the intervals.
    """

    laws: pd.DataFrame
    t_0_s: float
    t_read_s: float
    last_s: float
    r_squared: float
    p_normal: float
    confidence: float


def fit(rows: pd.DataFrame, *, t_0_s: float, t_read_s: float, confidence: float = 0.95) -> Fit:
    """Fit programming error, drift exponents and read noise at every target.

    Args:
        rows: Measurements, as from ``read_measurements``; at least 3 times per cell, 8 cells
            per target and 2 targets.
        t_0_s: First read after programming [s]; time counts from the end of programming.
        t_read_s: Duration of a read [s].
        confidence: Confidence level of the intervals.

    Returns:
        The laws with intervals and goodness of fit.

    Raises:
        ValueError: If there are too few times, cells or targets.
    """
    fits, residuals, total = [], [], 0.0
    for target, group in rows.groupby("target_uS"):
        law, z, variance = _fit_target(float(str(target)), group, t_0_s, t_read_s, confidence)
        fits.append(law)
        residuals.append(z)
        total += variance
    if len(fits) < 2:
        raise ValueError(f"The measurements have {len(fits)} target; at least 2 are needed.")
    unexplained = sum(float(np.square(z["raw"]).sum()) for z in residuals)
    normal = np.concatenate([z["standard"] for z in residuals])
    return Fit(
        laws=pd.DataFrame(fits),
        t_0_s=t_0_s,
        t_read_s=t_read_s,
        last_s=float(rows["time_s"].max()),
        r_squared=1 - unexplained / total if total else 0.0,
        p_normal=float(stats.kstest(normal, "norm").pvalue),
        confidence=confidence,
    )


def _fit_target(
    target: float, group: pd.DataFrame, t_0_s: float, t_read_s: float, confidence: float
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
        t = one["time_s"].to_numpy() + t_0_s
        x, y = np.log(t / t_0_s), np.log(one["conductance_uS"].to_numpy())
        spread = np.sqrt(np.log((t + t_read_s) / (2 * t_read_s)))  # of ln g, in units of Q
        design = np.stack([np.ones_like(x), -x], axis=1) / spread[:, None]
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
        raw.append(y - (design @ solution) * spread)
        total += float(np.square(y - y.mean()).sum())
    q_squared = weights_sum / freedom
    q = float(np.sqrt(q_squared))
    n = len(devices)
    # E[exp(estimate)] is g_prog exp(variance / 2): corrects for the read noise of the estimate
    level_noise = q_squared * np.array(level_factors)
    programmed = np.exp(np.array(intercepts) - level_noise / 2)
    error = programmed - target
    excess = float(np.mean(programmed**2 * level_noise))
    slope_noise = float(q_squared * np.mean(slope_factors))
    law: dict[str, float] = {"target_uS": target, "n": n}
    for mean_key, spread_key, values, noise in (
        ("programming_offset_uS", "programming_spread_uS", error, excess),
        ("nu_mean", "nu_spread", np.array(slopes), slope_noise),
    ):
        law |= _moments(mean_key, spread_key, values, noise, confidence)
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


def estimate_t_0(rows: pd.DataFrame) -> float:
    """Find the t_0 [s] for which mean ln g is closest to a straight line in ln((t + t_0) / t_0).

    Args:
        rows: Measurements.

    Returns:
        t_0, between a hundredth of the first time after 0 and the last time.
    """
    logs = rows[rows["conductance_uS"] > 0].assign(y=lambda r: np.log(r["conductance_uS"]))
    logs["y"] -= logs.groupby("device")["y"].transform("mean")
    mean = logs.groupby("time_s")["y"].mean()
    t = mean.index.to_numpy(dtype=float)

    def misfit(log_t_0: float) -> float:
        x = np.log1p(t / np.exp(log_t_0))
        slope, intercept = np.polyfit(x, mean.to_numpy(), 1)
        return float(np.square(mean.to_numpy() - slope * x - intercept).sum())

    bounds = float(np.log(t[t > 0].min() / 100)), float(np.log(t.max()))
    return float(np.exp(optimize.minimize_scalar(misfit, bounds=bounds, method="bounded").x))
