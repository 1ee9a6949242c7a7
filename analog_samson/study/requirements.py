"""How good must a device be? The tolerance of networks for each of its noise sources.

The statistics are those of :mod:`analog_samson.results.tolerance`: searches ask for chips, which
are collected as those of any study, with the scaled settings as their condition, until every search
has found its interval. A search has no state of its own: one that is started again takes its chips
from the table.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm.auto import tqdm

from analog_samson.analog.moments import measure
from analog_samson.devices import Device
from analog_samson.devices.array import WIRE_OHM
from analog_samson.devices.noise_sources import (
    ALL_TOGETHER,
    Others,
    chosen_sources,
    noise_sources,
    scaled_settings,
)
from analog_samson.files import replacing
from analog_samson.results import digital_score, estimated_score, score_of
from analog_samson.results.tolerance import (
    Asked,
    Rule,
    Tolerance,
    scale_of,
    search,
)
from analog_samson.study.collection import collect_trials
from analog_samson.study.cost import CostEstimate, estimate_cost
from analog_samson.study.definition import Study, Trial
from analog_samson.study.scoring import find_score
from analog_samson.times import label

TOLERANCES_FILE = "tolerances.csv"

MEASURED_CELLS = 20_000
"""Simulated cells of a physical value at the largest conductance: spreads to 0.5 %. Our choice."""

TYPICAL_CV = 0.5
"""Spread of the losses of chips, relative to their mean, that costs are stated for: our choice;
LeNet-5 on MNIST has 0.3 to 0.5."""

_EXACT = 1e-5
"""Rounding errors of conductances, relative to the largest one."""


def tolerances(
    study: Study,
    folder: str | Path,
    lose: float,
    *,
    share: float | None = None,
    confidence: float = 0.95,
    sources: Sequence[str] = (),
    others: Others = "off",
    jobs: int = 1,
    progress: bool = False,
) -> pd.DataFrame:
    """Find the largest scale of each noise source at which each network loses no more than it may.

    Args:
        study: The networks, one device and one time, the score, the test images and the seed;
            ``n_chips`` is the largest number of chips at a scale. Axes are not allowed.
        folder: Folder of ``trials.csv``, whose chips are not computed again, and of
            ``tolerances.csv``, what is returned.
        lose: Largest loss, as it is shown: points of accuracy, % of perplexity, or the unit of
            another score.
        share: Yield: share of the chips that may lose no more than that; None: their mean.
        confidence: Probability with which an interval contains the tolerance of its network.
        sources: Noise sources (``devices.noise_sources``), or "all together"; none takes all.
        others: The sources that are not scaled: "off", or "nominal", as on the device.
        jobs: Worker processes.
        progress: Whether to show a progress bar of the searches.

    Returns:
        One row per network and source: ``factor``, ``low``, ``high``, ``bound``, ``falls``,
        ``coefficient_of_variation``, ``n_chips``, ``n_scales`` (see
        ``results.tolerance.Tolerance``), ``missed`` (whether the others, as on the device, miss the
        target without the source: mean of the first chips), what was asked, and ``quantity``,
        ``nominal``, ``unit``: what the factor multiplies physically.

    Raises:
        ValueError: If the study is invalid (``Study.trials``), has axes, several devices, times or
            reads, the device has no such source, a value of the rule is out of range, or a network
            loses too much with all noise off.

    Example:
        >>> from analog_samson.checkpoint import TrainingSpec
        >>> from analog_samson.training import train
        >>> network = train(TrainingSpec(dataset="digits", epochs=5), "networks")
        >>> study = Study("example", [network], ["pcm_like"], ["1 d"], n_chips=5)
        >>> found = tolerances(study, "results/example", lose=5.0, sources=["drift_scale"])
        >>> bool((found["low"] < found["factor"]).all())
        True
    """
    searches = _Searches(study, lose, share, confidence, sources, others)
    folder = Path(folder)
    searches.check_without_source(folder, jobs)
    found = searches.run(folder, jobs, is_shown=progress)
    with replacing(folder / TOLERANCES_FILE) as temporary:
        found.to_csv(temporary, index=False)
    return found


def estimate_tolerances(
    study: Study,
    lose: float,
    *,
    share: float | None = None,
    confidence: float = 0.95,
    sources: Sequence[str] = (),
    others: Others = "off",
    jobs: int = 1,
) -> CostEstimate:
    """Estimate the cost of :func:`tolerances`.

    The number of chips is that of simulated searches in which losses grow with the square of the
    scale and chips spread by half of their mean loss (`TYPICAL_CV`); their time is measured.

    Args:
        study: As for :func:`tolerances`; no files are written.
        lose: As there.
        share: As there.
        confidence: As there.
        sources: As there.
        others: As there.
        jobs: Number of workers, each on its own core.

    Raises:
        ValueError: As :func:`tolerances`, before any chip is programmed.

    Example:
        >>> few = Study("few", [network], ["pcm_like"], ["1 d"], n_chips=5)
        >>> estimate_tolerances(few, lose=5.0, sources=["drift_scale"]).n_chips > 5
        True
    """
    searches = _Searches(study, lose, share, confidence, sources, others)
    chips = round(_typical_chips(searches.rule) * len(searches.sources) * len(searches.networks))
    n_chips = math.ceil(chips / len(searches.networks))
    return estimate_cost(replace(study, n_chips=n_chips), jobs=jobs)


class _Searches:
    """All searches of a study, one for each network and source."""

    def __init__(
        self,
        study: Study,
        lose: float,
        share: float | None,
        confidence: float,
        sources: Sequence[str],
        others: Others,
    ) -> None:
        if others not in ("off", "nominal"):
            raise ValueError(f"The other sources are 'off' or 'nominal'; got {others!r}.")
        if study.axes or study.n_reads > 1:
            raise ValueError(
                f"Study {study.name!r} has axes or several reads; requirements scale the noise "
                "sources themselves, with one read: leave them out."
            )
        score = find_score(study.score)
        Rule(lose, share, confidence, study.n_chips)  # before anything is read
        nominal = study.trials()
        devices = {trial.device.name for trial in nominal}
        if len(devices) > 1 or any(len(trial.points) > 1 for trial in nominal):
            raise ValueError(
                f"Study {study.name!r} must have one device and one time; it has "
                f"{', '.join(sorted(devices))} and {max(len(t.points) for t in nominal)} time(s)."
            )
        self.study, self.others = study, others
        self.device: Device = nominal[0].device
        self.time_s = nominal[0].points[0][0]
        self.networks: dict[str, list[Trial]] = {}
        for trial in nominal:
            self.networks.setdefault(trial.checkpoint, []).append(trial)
        self.sources = chosen_sources(self.device, sources)
        self.shown_loss = lose
        in_table = math.log1p(lose / 100) if score.is_exponential else lose
        if in_table / score.scale >= score.limits[1] - score.limits[0]:
            raise ValueError(
                f"A loss of {lose:g} is more than any chip can lose of its {score.label}; give one "
                f"below {score.scale * (score.limits[1] - score.limits[0]):g}."
            )
        n_images = max(trial.n_images_per_chip for trial in nominal)
        self.rule = Rule(
            lose=in_table / score.scale,
            share=share,
            confidence=confidence,
            chips_at_most=study.n_chips,
            resolution=score.step / n_images,
        )
        self._missed: set[tuple[str, str]] = set()
        self._trials: dict[tuple[str, float], dict[str, list[Trial]]] = {}
        if others == "off":
            self._check_cells_can_be_without_noise()

    def trials(self, source: str, factor: float) -> dict[str, list[Trial]]:
        """Digest of each network to its chips at a scale of a source."""
        if (source, factor) not in self._trials:
            settings = scaled_settings(self.device, source, factor, self.others)
            self._trials[source, factor] = {
                network: self.study.under(settings, chips)
                for network, chips in self.networks.items()
            }
        return self._trials[source, factor]

    def losses(self, trials: Sequence[Trial], folder: Path, jobs: int) -> dict[str, float]:
        """Chip to its loss, after the missing ones were computed."""
        rows = collect_trials(self.study, trials, folder, jobs=jobs)
        lost = score_of(rows).lost(digital_score(rows), estimated_score(rows))
        return dict(zip(rows["chip_id"], lost.astype(float), strict=True))

    def _check_cells_can_be_without_noise(self) -> None:
        """Raise if the noise of cells is not that of the sources, which all are switched off."""
        settings = scaled_settings(self.device, next(iter(self.sources)), 0.0)
        off = self.device.with_axes(settings)
        moments = measure(off, [self.time_s], n_levels=3, n=100)
        moments = moments[(moments["g_uS"] > 0)].set_index("quantity")
        is_ratio = moments.index == "drift"
        errors = pd.concat([moments["mean"] - is_ratio, moments["spread"]])
        g_max_uS = off.noise.conductance_range[1]
        errors[errors.index == "drift"] *= g_max_uS
        in_uS = errors.loc[errors.index.intersection(["programming", "drift", "read"])]
        if in_uS.abs().max() > _EXACT * g_max_uS:
            raise ValueError(
                f"The cells of device {self.device.name!r} ({self.device.noise.model}) have noise "
                f"or drift beside {', '.join(noise_sources(self.device))}, which cannot be "
                "switched off; use others='nominal' (--others nominal), or a model whose scales "
                "have these names."
            )

    def check_without_source(self, folder: Path, jobs: int) -> None:
        """Find the networks that miss the target with a source off; raise if all sources are."""
        sources = list(self.sources) if self.others == "nominal" else list(self.sources)[:1]
        n = self.rule.looks[0]
        for source in sources:
            trials = self.trials(source, 0.0)
            losses = self.losses([t for own in trials.values() for t in own[:n]], folder, jobs)
            for network, own in trials.items():
                found = np.array([losses[trial.chip_id] for trial in own[:n]])
                if self.rule.excess(found) <= 0:
                    continue
                if self.others == "nominal" and source != ALL_TOGETHER:
                    self._missed.add((source, network))
                    continue
                score = find_score(self.study.score)
                raise ValueError(
                    f"{own[0].checkpoint_path.name} loses {score.shown_loss(found.mean()):.3g} "
                    f"with all noise sources of {self.device.name!r} off (converters, bounds and "
                    f"compensation alone), more than {self.shown_loss:g}; allow a larger loss, or "
                    "leave the network out."
                )

    def run(self, folder: Path, jobs: int, *, is_shown: bool) -> pd.DataFrame:
        """Run all searches to their end, each round with the chips that any of them needs."""
        known: dict[tuple[str, str], dict[int, NDArray[np.float64]]]
        known = {(source, network): {} for source in self.sources for network in self.networks}
        found: dict[tuple[str, str], Tolerance] = {}
        with tqdm(
            total=len(known), desc=self.study.name, unit="search", disable=not is_shown
        ) as bar:
            while len(found) < len(known):
                asked: dict[tuple[str, str], list[Asked]] = {}
                for key, losses in known.items():
                    if key in found:
                        continue
                    result = search(losses, self.rule)
                    if isinstance(result, Tolerance):
                        found[key] = result
                        bar.update()
                    else:
                        asked[key] = result
                self._answer(asked, known, folder, jobs)
        rows = [self._row(source, net, found[source, net]) for net in self.networks
                for source in self.sources]  # fmt: skip
        return pd.DataFrame(rows)

    def _answer(
        self,
        asked: Mapping[tuple[str, str], Sequence[Asked]],
        known: dict[tuple[str, str], dict[int, NDArray[np.float64]]],
        folder: Path,
        jobs: int,
    ) -> None:
        wanted = {
            (key, step): self.trials(key[0], scale_of(step))[key[1]][:n_chips]
            for key, steps in asked.items()
            for step, n_chips in steps
        }
        if not wanted:
            return
        chips = {trial.chip_id: trial for own in wanted.values() for trial in own}
        ordered = sorted(chips.values(), key=lambda trial: (trial.checkpoint, trial.condition))
        losses = self.losses(ordered, folder, jobs)
        for (key, step), own in wanted.items():
            known[key][step] = np.array([losses[trial.chip_id] for trial in own])

    def _row(self, source: str, network: str, found: Tolerance) -> dict[str, object]:
        trial = self.networks[network][0]
        score = find_score(self.study.score)
        labels = {
            name: value
            for name, value in trial.labels.items()
            if name not in ("study", "chip_id", "condition", "chip", "programming_seed")
        }
        quantity, nominal, unit = physical(
            self.device, source, self.sources[source], self.time_s, self.others
        )
        return {
            "score": score.name,
            "higher_is_better": score.is_higher_better,
            **labels,
            "t_inference_s": self.time_s,
            "extrapolated": self.device.is_extrapolated(self.time_s),
            "source": source,
            "others": self.others,
            "condition": trial.condition,
            "chips_vary": self.device.variation.label,
            "lose": self.rule.lose,
            "share": math.nan if self.rule.share is None else self.rule.share,
            "confidence": self.rule.confidence,
            "factor": found.factor,
            "low": found.low,
            "high": found.high,
            "bound": found.bound,
            "falls": "; ".join(f"{a:g} to {b:g}" for a, b in found.falls),
            "coefficient_of_variation": found.coefficient_of_variation,
            "missed": (source, network) in self._missed,
            "n_chips": found.n_chips,
            "n_scales": found.n_scales,
            "chips_at_most": self.rule.chips_at_most,
            "quantity": quantity,
            "nominal": nominal,
            "unit": unit,
        }


@cache
def physical(
    device: Device, source: str, value: float, t_inference_s: float, others: Others = "off"
) -> tuple[str, float, str]:
    """What the scale of a noise source multiplies.

    Args:
        device: The device.
        source: One of its noise sources, or "all together".
        value: The own value of the setting.
        t_inference_s: Time since programming finished [s].
        others: The other sources, as in the search: cells that drift have a smaller read noise.

    Returns:
        A text ("programming spread at 25 µS"), its value on the device and its unit; "", NaN and ""
        where there is none. Spreads and exponents are those of simulated cells at the largest
        conductance that are not stuck.
    """
    nothing = "", math.nan, ""
    g_max = device.noise.conductance_range[1]
    at = f"at {g_max:g} µS"
    settings = {
        "output_noise": ("output noise", value, "normalised"),
        "mvm_read_noise": ("read noise of a product", 100 * value, "% of the largest weight"),
        "mvm_read_noise_uS": ("read noise of a cell in a product", value, "µS"),
        "ir_drop": ("wire resistance of a cell", WIRE_OHM * value, "ohm"),
        "stuck_low": ("cells stuck low", 100 * value, "%"),
        "stuck_high": ("cells stuck high", 100 * value, "%"),
        "sigma": ("spread of weights", 100 * value, "% of the largest weight"),
    }
    if source in settings:
        is_relative = getattr(device.noise, "law", "gaussian_max") in (
            "proportional",
            "multiplicative",
        )
        text, number, unit = settings[source]
        return text, number, "% of the weight" if source == "sigma" and is_relative else unit
    if source == ALL_TOGETHER or device.noise.cells == "signed":
        return nothing
    searched = scaled_settings(device, source, 1.0, others) | {"stuck_low": 0.0, "stuck_high": 0.0}
    moments = measure(device.with_axes(searched), [t_inference_s], n_levels=2, n=MEASURED_CELLS)
    moments = moments[moments["g_uS"] == moments["g_uS"].max()].set_index("quantity")
    when = label(t_inference_s)
    if source == "programming_noise_scale" and "programming" in moments.index:
        return f"programming spread {at}", float(moments.loc["programming", "spread"]), "µS"
    if source == "programming_noise_scale" and "drift" in moments.index:
        spread = float(moments.loc["drift", "spread"]) * g_max
        return f"spread {at} after {when}", spread, "µS"
    if source == "read_noise_1f_scale" and "read" in moments.index:
        return f"read spread {at} after {when}", float(moments.loc["read", "spread"]), "µS"
    if source == "drift_scale" and "exponent" in moments.index:
        return f"mean drift exponent {at}", float(moments.loc["exponent", "mean"]), ""
    for quantity, until in (("slope", ""), ("change", " after a long time")):
        if source == "drift_scale" and quantity in moments.index:
            mean = float(moments.loc[quantity, "mean"])
            word = "rise" if mean > 0 else "decline"
            return f"mean {word} {at}{until}", abs(mean), device.noise.drift_parameter[1]
    return nothing


@cache
def _typical_chips(rule: Rule, n_searches: int = 20) -> float:
    """Mean number of chips of simulated searches."""
    draws = np.random.default_rng(0)
    width = math.sqrt(math.log1p(TYPICAL_CV**2))
    total = 0
    for _ in range(n_searches):
        errors = np.exp(width * draws.normal(size=rule.chips_at_most) - width**2 / 2)
        at_nominal = rule.lose * 4.0 ** draws.uniform(-2, 2)
        losses: dict[int, NDArray[np.float64]] = {}
        while isinstance(found := search(losses, rule), list):
            for step, n in found:
                losses[step] = at_nominal * scale_of(step) ** 2 * errors[:n]
        total += found.n_chips
    return total / n_searches
