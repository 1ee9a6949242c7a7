"""All tables and figures of a study, from its rows."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import pandas as pd
from matplotlib.figure import Figure

from analog_samson import results
from analog_samson.files import replacing
from analog_samson.report import figures, words
from analog_samson.report.content import Content
from analog_samson.report.items import Item, with_extra
from analog_samson.report.methods import dataset_label, device_label, labelled
from analog_samson.report.sweeps import grids_of
from analog_samson.report.typeset import Table
from analog_samson.results.scale import Scale
from analog_samson.times import seconds

T = TypeVar("T")


def select(
    rows: pd.DataFrame,
    *,
    devices: Sequence[str] = (),
    methods: Sequence[str] = (),
    times_s: Sequence[float | str] = (),
) -> pd.DataFrame:
    """Select devices, methods and times; an empty selection keeps all.

    Args:
        rows: Rows of trials.
        devices: Names of devices.
        methods: Names of methods, with or without strength ("sam", "sam rho=0.5").
        times_s: Times since programming, in seconds or as "1 h" (see `times.seconds`).

    Returns:
        The rows that match.

    Raises:
        ValueError: If a name or time is not among the rows.

    Example:
        >>> len(select(rows, methods=["sam"], times_s=["1 h"]))  # 3 networks x 2 chips
        6
    """
    names = words.method_names(rows)
    _check_known("device", devices, rows["device"].unique())
    _check_known("method", methods, {*names, *rows["method"]})
    moments = [seconds(time) for time in times_s]
    _check_known("time", list(map(str, moments)), map(str, rows["t_inference_s"].unique()))
    kept = pd.Series(True, index=rows.index)
    if devices:
        kept &= rows["device"].isin(devices)
    if methods:
        kept &= names.isin(methods) | rows["method"].isin(methods)
    if times_s:
        kept &= rows["t_inference_s"].isin(moments)
    return rows[kept]


def study_tables(
    rows: pd.DataFrame,
    *,
    folders: Sequence[str | Path] = (),
    n_classes: Mapping[str, int] | None = None,
    baseline: str = "sgd",
    confidence: float = 0.95,
    bootstrap: bool = False,
    half_width: float | None = None,
    scale: Scale = "auto",
    target: float | None = None,
    labels: Mapping[str, str] = MappingProxyType({}),
    details: bool = False,
    extra_items: Iterable[Item | str] = (),
) -> dict[str, Table]:
    """Every table that the rows have data for.

    Args:
        rows: Rows of trials.
        folders: Folders of the studies, for the files beside ``trials.csv``.
        n_classes: Classes of each data set; None reads the manifests in the folders.
            Where they are not known there is no table of normalised accuracy.
        baseline: Method that gains are counted from; without it there is no gain table.
        confidence: Probability with which intervals cover.
        bootstrap: Whether intervals of the accuracy come from a bootstrap over networks.
        half_width: Target half-width, as a fraction, of a table of the chips or networks needed
            for it.
        scale: Scale of means, gains and tests: "auto", "accuracy" or "logit" (see `Content`).
        target: Accuracy that chips must reach for the yield, as a fraction, or another score as it
            is shown; None takes `results.default_targets`.
        labels: Names of methods, devices, networks and data sets to labels (see `labelled`).
        details: Whether captions name engine and precision.
        extra_items: Items of other packages (see `with_extra`).

    Returns:
        File stem to table: "accuracy", "lost" and "yield" always, "gain", "saved", "lifetime",
        "iso_accuracy", "grid" where there are data, "planning" for a half-width, and those of
        extra items. In the stems the column of another score stands for "accuracy".

    Raises:
        ValueError: If there are no rows, they mix definitions, or an extra item is not an `Item`.

    Example:
        >>> list(study_tables(rows))
        ['accuracy', 'gain', 'lost', 'saved', 'yield', 'lifetime']
    """
    content = Content(
        rows,
        [Path(folder) for folder in folders],
        n_classes,
        baseline=baseline,
        confidence=confidence,
        bootstrap=bootstrap,
        half_width=half_width,
        scale=scale,
        target=target,
    )
    with labelled(labels, details=details):
        return _all(item.tables(content) for item in with_extra(extra_items))


def study_figures(
    rows: pd.DataFrame,
    *,
    folders: Sequence[str | Path] = (),
    baseline: str = "sgd",
    confidence: float = 0.95,
    bootstrap: bool = False,
    interval: str = "bars",
    width: str | float = "two columns",
    look: str = "paper",
    scale: Scale = "auto",
    target: float | None = None,
    programmed: bool = False,
    same_times: bool = False,
    overlay: Sequence[str] = (),
    labels: Mapping[str, str] = MappingProxyType({}),
    details: bool = False,
    extra_items: Iterable[Item | str] = (),
) -> dict[str, Figure]:
    """Every figure that the rows, and the files beside them, have data for.

    Args:
        rows: Rows of trials.
        folders: Folders of the studies, for the files beside ``trials.csv``; files of several
            folders are combined.
        baseline: Method that gains are counted from.
        confidence: Probability with which intervals cover.
        bootstrap: Whether intervals of the accuracy come from a bootstrap over networks.
        interval: "bars" or "band", over time.
        width: "one column", "two columns" or inches.
        look: "paper", "talk" or the path of a style sheet (.mplstyle).
        scale: Scale of means, gains and tests: "auto", "accuracy" or "logit" (see `Content`).
        target: Accuracy that chips must reach for the yield, as a fraction; None takes
            `results.default_targets`.
        programmed: Whether figures over time show the programmed state (t = 0), too.
        same_times: Whether all panels of a figure have one time axis.
        overlay: Columns such as "compensation", "device" and "study" whose values are laid over
            each other on one axes, in a figure of its own.
        labels: Names of methods, devices, networks and data sets to labels (see `labelled`).
        details: Whether captions name engine and precision.
        extra_items: Items of other packages (see `with_extra`).

    Returns:
        File stem to figure: "accuracy", "gain", "lost", "saved", "yield", "lifetime", "chips",
        "strips", "scatter", per swept axis (or pair of axes) one more, "waterfall", "layers",
        "sharpness" and "training"
        where a folder has their files, and those of extra items.

    Raises:
        ValueError: If there are no rows, they mix definitions, a file lacks columns, a name is
            unknown, or an extra item is not an `Item`.

    Example:
        >>> list(study_figures(select(rows, times_s=["1 h"])))
        ['accuracy', 'gain', 'lost', 'saved', 'yield', 'lifetime', 'chips', 'strips', 'scatter']
    """
    content = Content(
        rows,
        [Path(folder) for folder in folders],
        baseline=baseline,
        confidence=confidence,
        bootstrap=bootstrap,
        interval=interval,
        width=width,
        look=look,
        scale=scale,
        target=target,
        programmed=programmed,
        same_times=same_times,
        overlay=overlay,
    )
    with labelled(labels, details=details):
        return _all(item.figures(content) for item in with_extra(extra_items))


def write_tables(finished: Mapping[str, Table], folder: str | Path) -> list[Path]:
    """Write tables as Markdown, LaTeX and CSV.

    Args:
        finished: File stem to table.
        folder: Where to; it must exist.

    Returns:
        The files written.

    Raises:
        FileNotFoundError: If the folder does not exist.

    Example:
        >>> finished = study_tables(select(rows, times_s=["1 h"]))
        >>> [path.name for path in write_tables({"accuracy": finished["accuracy"]}, ".")]
        ['accuracy.md', 'accuracy.tex', 'accuracy.csv']
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"Folder {str(folder)!r} does not exist; make it first.")
    paths = []
    for name, text in table_texts(finished).items():
        paths.append(folder / name)
        with replacing(paths[-1]) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
    return paths


def table_texts(finished: Mapping[str, Table]) -> dict[str, str]:
    """Names of the files of tables to what they hold.

    Example:
        >>> finished = study_tables(select(rows, times_s=["1 h"]))
        >>> list(table_texts({"accuracy": finished["accuracy"]}))
        ['accuracy.md', 'accuracy.tex', 'accuracy.csv']
    """
    return {
        f"{stem}.{ending}": text
        for stem, table in finished.items()
        for ending, text in (
            ("md", table.markdown()),
            ("tex", table.latex()),
            ("csv", table.csv()),
        )
    }


def check_tables(texts: Mapping[str, str], folder: str | Path) -> None:
    """Compare the files of tables that are in a folder with what they must hold.

    Args:
        texts: Names of files, to what they must hold, as `table_texts` gives.
        folder: Where they are; a file that is not there is not missed.

    Raises:
        ValueError: If a file holds something else.

    Example:
        >>> texts = table_texts(study_tables(select(rows, times_s=["1 h"])))
        >>> check_tables(texts, "no_tables_here")
        >>> _ = Path("accuracy.md").write_text("another table")
        >>> check_tables(texts, ".")
        Traceback (most recent call last):
            ...
        ValueError: .: these tables differ: accuracy.md. ...
    """
    folder = Path(folder)
    there = {name: folder / name for name in texts if (folder / name).exists()}
    differ = [name for name, path in there.items() if path.read_bytes() != texts[name].encode()]
    if differ:
        raise ValueError(
            f"{folder}: these tables differ: {', '.join(differ)}. Restore the rows that they are "
            "of, or, if the study has grown since, remove them and write them again."
        )


def write_figures(
    drawn: Mapping[str, Figure],
    folder: str | Path,
    formats: Sequence[str] = figures.FORMATS,
    *,
    look: str = "paper",
) -> list[Path]:
    """Write figures.

    Args:
        drawn: File stem to figure.
        folder: Where to; it must exist.
        formats: Any of "pdf", "png", "svg", "pgf".
        look: Style sheet that the figures were drawn with.

    Returns:
        The files written.

    Raises:
        FileNotFoundError: If the folder does not exist.
        ValueError: If a format is unknown.

    Example:
        >>> figure = figures.accuracy_figure(summary)
        >>> [path.name for path in write_figures({"accuracy": figure}, ".", ["png"])]
        ['accuracy.png']
    """
    paths = []
    for stem, figure in drawn.items():
        paths += figures.save(figure, Path(folder) / stem, formats, look=look)
    return paths


def warnings_of(content: Content) -> list[str]:
    """Limitations to know before the numbers are used.

    Args:
        content: Content of the report.

    Returns:
        One sentence per warning; empty without warnings.
    """
    rows, summary = content.rows, content.summary
    found = []
    if (summary["n_networks"] == 1).any():
        alone = set(words.method_names(summary[summary["n_networks"] == 1]))
        names = [words.method_text(name) for name in sorted(alone)]
        found.append(
            f"One trained network for {', '.join(names)}: intervals are over chips only and do not "
            "cover another training."
        )
    elif (summary["n_networks"] < 5).any():
        found.append(
            f"Only {summary['n_networks'].min()} trained networks for some methods: intervals are "
            "wide and depend on assumptions."
        )
    if (summary["n_networks"] == 2).any():
        found.append("Nothing is tested with two trained networks: train a third seed.")
    ruled = results.scales_of(content.chips)
    if any(ruled[dataset] == "logit" != own for dataset, own in content.scales.items()):
        found.append(
            "Where few errors are left, their spread is skewed: intervals of mean accuracies over "
            "few networks are too narrow, mostly upward, and tests favour the method that varies "
            "more. Prefer --scale auto, which describes the typical chip."
        )
    found += _primary_warnings(content.primary_endpoints)
    if (summary["n_chips"] < 5).any():
        found.append(f"Only {summary['n_chips'].min()} chips of some networks.")
    if (summary["n_chips"] < summary["n_chips_max"]).any() or _has_gaps(summary):
        found.append("The study is incomplete: some points are missing.")
    missing = words.missing_text(summary)
    if missing:
        found.append(f"Without trials: {missing}.")
    bare = summary[(summary["compensation"] == "none") & (summary["t_inference_s"] > 0)]
    if len(bare):
        found.append(f"No drift compensation on {_devices(bare)}.")
    normalised = content.score.averaged_label
    if content.score.guessing is not None and content.datasets_without_classes:
        unknown = ", ".join(map(dataset_label, content.datasets_without_classes))
        found.append(
            f"There is no table of normalised {normalised}: the number of classes of "
            f"{unknown} is not known (no manifest.json beside "
            "the table, or one of an earlier version)."
        )
    if content.guessing:
        found.append(
            f"Digital networks no better than guessing: {', '.join(content.guessing)}; there is no "
            f"table of normalised {normalised}."
        )
    if content.without_lifetime:
        found.append(
            f"The digital {content.score.label} of {', '.join(content.without_lifetime)} is 0: no "
            "share of it can be lost, so there is no lifetime."
        )
    torn = rows[~results.has_trajectories(rows)]
    again = torn["condition"].astype(str).str.contains(words.REFRESH)
    if not again.all():
        found.append(
            f"Every time of {_devices(torn[~again])} is an independent draw: the "
            "curves do not follow single chips and have no lifetime."
        )
    if again.any():
        found.append(
            f"Refreshed chips of {_devices(torn[again])} are programmed again between times: the "
            "curves have no lifetime."
        )
    found += _without_map(summary)
    late = summary[summary["extrapolated"]]
    if len(late):
        found.append(
            f"Times beyond the measurements of {_devices(late)} are "
            "extrapolated by the device model."
        )
    if not rows["reproducible"].all():
        found.append("Some rows come from an engine that cannot be seeded: not reproducible.")
    if rows["n_test"].min() < 1000:
        found.append(f"The evaluation set has only {rows['n_test'].min()} images.")
    return found


def _without_map(summary: pd.DataFrame) -> list[str]:
    """Devices whose settings were not crossed, where those of others are drawn over two."""
    grids = [grid for grid in grids_of(summary) if grid.axes]
    drawn = {grid.name for grid in grids if len(grid.axes) > 1}
    alone = [grid.rows for grid in grids if grid.name not in drawn]
    if not drawn or not alone:
        return []
    return [
        f"No map over two settings of {_devices(pd.concat(alone))}: one setting was swept at a "
        "time there."
    ]


def _devices(rows: pd.DataFrame) -> str:
    names = sorted(set(rows["device"]))
    return ", ".join(device_label(name, names) for name in names)


def _primary_warnings(endpoints: Sequence[Mapping[str, Any]]) -> list[str]:
    """Whether the primary endpoint was named, or changed, after rows were there."""
    late = [one for one in endpoints if one["rows_before"] > 0]
    if not late:
        return []
    n = late[0]["rows_before"]
    what = "was named" if len(late) == len(endpoints) else "was changed"
    return [f"The primary endpoint {what} when {n} rows were there already (manifest.json)."]


def _all(parts: Iterable[Mapping[str, T]]) -> dict[str, T]:
    return {stem: finished for part in parts for stem, finished in part.items()}


def _has_gaps(summary: pd.DataFrame) -> bool:
    named = summary.assign(name=words.method_names(summary))
    curves = named.groupby(["device", *words.varying(summary)], observed=True)
    full = curves["t_inference_s"].nunique() * curves["name"].nunique()
    return bool((curves.size() < full).any())


def _check_known(kind: str, wanted: Iterable[str], known: Iterable[str]) -> None:
    known = sorted(known)
    for name in wanted:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"No trial has the {kind} {name!r}; there are {known}.{hint}")
