"""The report of a study: everything a reader needs, redrawn from the folder's own files."""

from pathlib import Path

from analog_samson.report.figures import accuracy_figure, save
from analog_samson.report.tables import table
from analog_samson.results import best_methods, read_trials, summarise


def write_report(
    folder: str | Path, *, confidence: float = 0.95, look: str = "paper"
) -> list[Path]:
    """Redraw the tables and figures of a study from its ``trials.csv``.

    Args:
        folder: Folder of the study; the files are written beside its ``trials.csv``.
        confidence: Probability with which an interval covers the true mean.
        look: Style sheet, "paper" or "talk".

    Returns:
        The files written.

    Raises:
        FileNotFoundError: If the folder has no ``trials.csv``.
        ValueError: If the table is empty or damaged.
    """
    folder = Path(folder)
    trials = read_trials(folder)
    if trials.empty:
        raise ValueError(f"{str(folder / 'trials.csv')!r} holds no trials; run the study first.")
    summary = summarise(trials, confidence)
    accuracy = table(summary, best_methods(trials, confidence))
    paths = []
    for ending, text in (
        ("md", accuracy.markdown()),
        ("tex", accuracy.latex()),
        ("csv", accuracy.csv()),
    ):
        path = folder / f"accuracy.{ending}"
        path.write_text(text, encoding="utf-8", newline="\n")
        paths.append(path)
    paths += save(accuracy_figure(summary, look=look), folder / "accuracy", look=look)
    return paths
