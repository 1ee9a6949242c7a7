"""The main number of every figure in a sentence, for its alternative text on the page."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from analog_samson import times
from analog_samson.report import words
from analog_samson.report.content import Content
from analog_samson.report.figures import at_last_time, moment
from analog_samson.report.networks import MEASURES, correlations
from analog_samson.report.style import order
from analog_samson.report.typeset import EXTRAPOLATED
from analog_samson.results.scores import score_of

MANY = 4
"""Panels that are told one by one."""


def accuracy(content: Content) -> str:
    """The highest and the lowest mean score at the last time, for each panel."""
    score = content.score
    return _extremes(
        content.summary, score.column, lambda v: _with_unit(score.shown(v), score.unit)
    )


def gain(content: Content) -> str:
    """The largest and the smallest gain at the last time, for each panel."""
    return _of_gains(content, content.gains)


def saved(content: Content) -> str:
    """What the methods lose less than the baseline at the last time, for each panel."""
    return _of_gains(content, content.saved)


def lost(content: Content) -> str:
    """The largest and the smallest loss at the last time, for each panel."""
    score = content.score
    unit = score.difference_unit or score.unit
    return _extremes(content.lost, "lost", lambda v: _with_unit(score.shown_loss(v), unit))


def chips(content: Content) -> str:
    """The best and the worst chip at the last time, for each panel."""
    score, late = content.score, at_last_time(content.chips)
    text = _extremes(late, score.column, lambda v: _with_unit(score.shown(v), score.unit))
    return f"Single chips: {text}" if text else ""


def yields(content: Content) -> str:
    """The largest and the smallest share of chips that reach the target, for each panel."""
    target = words.target_text(content.score, words.targets_in(content.yields))
    text = _extremes(content.yields, "share", lambda v: f"{100 * v:.3g} %")
    return f"Chips with {target}: {text}"


def lifetime(content: Content) -> str:
    """The longest and the shortest lifetime, for each panel."""
    lives = telling(content.lives)
    rows = lives.assign(t_inference_s=0.0)
    signs = {"right": "more than ", "left": "less than ", "": ""}

    def said(row: "pd.Series[Any]") -> str:
        late = EXTRAPOLATED if row["extrapolated"] else ""
        return signs[str(row["censored"])] + times.label(float(str(row["lifetime_s"]))) + late

    parts = []
    for title, part in _panels(rows):
        ordered = part.sort_values("lifetime_s")
        first, last = ordered.iloc[-1], ordered.iloc[0]
        longest, shortest = said(first), said(last)
        if longest == shortest:
            parts.append(f"{title}: every method {longest}")
        else:
            text = f"longest {_name(first)} {longest}, shortest {_name(last)} {shortest}"
            parts.append(f"{title}: {text}")
    return _joined(parts)


def scatter(content: Content) -> str:
    """How many networks are worse on their chips than digital, for each panel."""
    score, parts = content.score, []
    for title, part in _panels(at_last_time(content.networks)):
        worse = int((score.lost(part[score.digital], part[score.column]) > 0).sum())
        parts.append(f"{title}: {worse} of {len(part)} networks are worse on their chips")
    return _joined(parts)


def stages(content: Content, rows: pd.DataFrame) -> str:
    """The stage that changes the score most, for each method."""
    return _by_method(content, rows, _largest_change)


def layers(content: Content, rows: pd.DataFrame) -> str:
    """The layer that loses most, for each method."""
    return _by_method(content, rows, _worst_layer)


def _by_method(
    content: Content, rows: pd.DataFrame, sentence: Callable[[pd.DataFrame], str]
) -> str:
    """A sentence on the rows of each method, with its name where there are several."""

    def of_methods(own: pd.DataFrame) -> str:
        named = own.assign(name=own["checkpoint"].map(content.names).fillna(""))
        found = {
            words.method_text(name): sentence(named[named["name"] == name])
            for name in sorted(named["name"].unique(), key=order)
        }
        if len(found) == 1:
            return "".join(text[:1].upper() + text[1:] for text in found.values())
        return ". ".join(f"{name}: {text}" for name, text in found.items() if text)

    return _by_task(content, rows, of_methods)


def _by_task(content: Content, rows: pd.DataFrame, told: Callable[[pd.DataFrame], str]) -> str:
    """What is told of each data set and model, with its name where the page has several."""
    found = {name: told(own) for name, own in content.by_task(rows).items()}
    return ". ".join(f"{name}: {text}" if name else text for name, text in found.items() if text)


def _largest_change(rows: pd.DataFrame) -> str:
    score = score_of(rows)
    means = rows.groupby("stage", sort=False)[score.column].mean()
    changes = means.diff().iloc[1:]
    if changes.empty:
        return ""
    most = str(changes.abs().idxmax())
    values = score.shown(means.to_numpy())
    change = values[list(means.index).index(most)] - values[list(means.index).index(most) - 1]
    first, last = (_with_unit(values[k], score.unit) for k in (0, -1))
    return (
        f"from {first} digital to {last}; the largest change is that of the stage {most}, "
        f"{_with_unit(change, '', sign='+')}"
    )


def _worst_layer(rows: pd.DataFrame) -> str:
    score = score_of(rows)
    loss = score.lost(rows[score.digital], rows[score.column])
    means = loss.groupby(rows["layer"], sort=False).mean()
    unit = score.difference_unit or score.unit
    loss_ = _with_unit(score.shown_loss(means.max()), unit)
    return f"most is lost by {means.idxmax()}: {loss_}"


def conductances(content: Content, rows: pd.DataFrame) -> str:
    """The mean distance of cells from their targets, as programmed and as read."""
    return _by_task(content, rows, _distances)


def _distances(counts: pd.DataFrame) -> str:
    parts = []
    for state, own in counts.groupby("state", sort=False):
        distance = (own["conductance_uS"] - own["target_uS"]).abs()
        parts.append(f"{state} {np.average(distance, weights=own['count']):.3g} µS")
    return f"Mean distance from the target: {', '.join(parts)}"


def clipping(content: Content, rows: pd.DataFrame) -> str:
    """The layers with the largest shares of clipped inputs and of saturated outputs."""
    return _by_task(content, rows, _largest_shares)


def _largest_shares(counts: pd.DataFrame) -> str:
    sums = counts.groupby("layer", sort=False)[
        ["n_clipped", "n_inputs", "n_saturated", "n_outputs"]
    ].sum()
    parts = []
    for cut, out_of, text in (
        ("n_clipped", "n_inputs", "clipped inputs"),
        ("n_saturated", "n_outputs", "saturated outputs"),
    ):
        share = sums[cut] / sums[out_of]
        parts.append(f"most {text} in {share.idxmax()}, {100 * share.max():.3g} %")
    return "; ".join(parts)


def sensitivity(content: Content) -> str:
    """The source at whose largest size the score is worst."""
    score, late = content.score, at_last_time(content.summary)
    lost = score.lost(late[score.digital], late[score.column])
    worst = late.iloc[int(lost.to_numpy().argmax())]
    value = _with_unit(score.shown(worst[score.column]), score.unit)
    return f"Worst: {value} with {words.condition_text(worst['condition'])} of {_name(worst)}"


def sharpness(content: Content) -> str:
    """The rank correlations of the first measure with the loss, for each panel."""
    measured = content.beside("sharpness.csv")
    late = at_last_time(content.networks)
    late = late[late["checkpoint"].isin(measured["checkpoint"])]
    titled = _panels(late)
    measures = [measure for measure in MEASURES if measure in measured]
    panels = [(part, measure) for _, part in titled for measure in measures]
    found = correlations(panels, measured)[:: len(measures)]
    parts = []
    for (title, _), one in zip(titled, found, strict=True):
        text = f"{title}: rank correlation {one.overall:+.2f}"
        if not np.isnan(one.within):
            text += f", within methods {one.within:+.2f} (p = {one.p_within:.2g}, corrected)"
        parts.append(text.replace("-", "−"))
    return _joined(parts)


def training(content: Content, rows: pd.DataFrame) -> str:
    """The smallest and the largest loss after the last epoch."""
    return _by_task(content, rows, _last_losses)


def _last_losses(curves: pd.DataFrame) -> str:
    whole = curves[curves["layer"].isin([np.nan, ""])] if "layer" in curves else curves
    of_training = ("method", "strength", "training_seed", "checkpoint")
    keys = [name for name in of_training if name in whole]
    last = whole.sort_values("epoch").groupby(keys)["loss"].last()
    return f"Training loss after the last epoch: {last.min():.3g} to {last.max():.3g} nat"


def telling(lives: list[pd.DataFrame]) -> pd.DataFrame:
    """The lifetimes of the loss that most methods reach; of several losses, of the smallest."""
    if lives[0].empty:
        return lives[0]
    return max(lives, key=lambda one: (one["censored"] == "").sum())


def _of_gains(content: Content, gains: pd.DataFrame) -> str:
    if gains.empty:
        return ""
    score = content.score
    unit = score.difference_unit or score.unit
    return _extremes(gains, "gain", lambda v: _with_unit(score.shown_gain(v), unit, sign="+"))


def _extremes(rows: pd.DataFrame, column: str, show: Callable[[float], str]) -> str:
    """The highest and the lowest value with their methods, for each panel at its last time."""
    parts = []
    for title, part in _panels(at_last_time(rows)):
        ordered = part.sort_values(column, kind="stable")
        first, last = ordered.iloc[-1], ordered.iloc[0]
        lowest = _and_lowest(first, last, show(last[column]))
        parts.append(
            f"{title} at {moment(part)}: highest {_name(first)} {show(first[column])}{lowest}"
        )
    return _joined(parts)


def _panels(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    columns = words.varying(rows)
    return [
        (words.group_title(part.iloc[0], columns, rows["device"].unique()), part)
        for _, part in rows.groupby(["device", *columns], observed=True, sort=True)
    ]


def _joined(parts: list[str]) -> str:
    more = f"; and {len(parts) - MANY} more panels" if len(parts) > MANY else ""
    text = "; ".join(parts[:MANY]) + more
    return text.replace(EXTRAPOLATED, " (extrapolated)")


def _and_lowest(first: "pd.Series[Any]", last: "pd.Series[Any]", value: str) -> str:
    return "" if first.equals(last) else f", lowest {_name(last)} {value}"


def _name(row: "pd.Series[Any]") -> str:
    return words.method_text(f"{row['method']} {row['strength']}".strip())


def _with_unit(value: float, unit: str, sign: str = "") -> str:
    digits = 3 if "point" in unit else 4
    return f"{value:{sign}.{digits}g} {unit}".strip().replace("-", "−")
