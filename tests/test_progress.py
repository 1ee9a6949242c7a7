"""Claims about what a running study says of itself."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from synthetic_trials import make_trials

from analog_samson import progress
from analog_samson.locks import sole_writer
from analog_samson.progress import Progress, Watch, means_so_far, progress_file, status
from analog_samson.results import append_rows


def some_rows(**options):
    return make_trials({"sgd": 0.9, "samson": 0.95}, n_networks=2, n_chips=3, **options)


def test_a_line_has_points_speed_and_time_left():
    now = Progress("s", "trials.csv", n_points=100, n_there=10, n_done=30, seconds=15.0)
    assert str(now) == "40 of 100 points (40%), 2 points/s, 30 s left"
    assert str(replace(now, ended="finished")) == "40 of 100 points (40%), 2 points/s"
    assert str(replace(now, n_done=0)) == "10 of 100 points (10%)"


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_the_file_tells_how_a_run_ended(tmp_path, error):
    table = tmp_path / "trials-part2of3.csv"
    path = tmp_path / "progress-part2of3.json"
    assert progress_file(table) == path
    try:
        with Watch("s", table, 10, 4, is_shown=False) as watch:
            assert json.loads(path.read_text())["ended"] == ""
            watch.add("a\nb\n")
            watch.add("c\n")
            if error:
                raise error
    except KeyboardInterrupt:
        pass
    found = json.loads(path.read_text())
    assert found["ended"] == ("interrupted" if error else "finished")
    assert (found["n_points"], found["n_there"], found["n_done"]) == (10, 6, 3)


def test_without_a_terminal_there_is_a_line_a_minute_and_a_last_one(tmp_path, capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Watch("keywords", tmp_path / "trials.csv", 400, 400, is_shown=True) as watch:
        for _ in range(200):
            now[0] += 1
            watch.add("row\n")
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "keywords: 60 of 400 points (15%), 1 points/s, 5.67 min left",
        "keywords: 120 of 400 points (30%), 1 points/s, 4.67 min left",
        "keywords: 180 of 400 points (45%), 1 points/s, 3.67 min left",
        "keywords: 200 of 400 points (50%), 1 points/s",
    ]


def test_status_tells_running_from_stopped_and_shows_means(tmp_path):
    rows = some_rows(times_s=[1.0, 3600.0])
    table = tmp_path / "trials.csv"
    append_rows(rows, table)
    watch = Watch("s", table, 100, 100 - len(rows), is_shown=False)
    watch.__enter__()
    with sole_writer(table):
        assert re.search(r"trials.csv: runs on \S*, 24 of 100 points \(24%\)", status(tmp_path))
    said = status(tmp_path)
    assert re.search(r"trials.csv: stopped on \S*, \S+ s ago, 24 of 100 points", said)
    assert f"{tmp_path}: 24 points of 12 chips are there." in said
    means = means_so_far(rows)
    assert list(means.columns) == ["time", "method", "accuracy [%]", "n_networks", "n_chips"]
    for _, row in means.iterrows():
        same = rows[rows["method"] == row["method"].split()[0]]
        same = same[same["t_inference_s"] == {"1 s": 1, "1 h": 3600}[row["time"]]]
        accuracy = (same["n_correct"] / same["n_images_per_chip"]).mean()
        assert row["accuracy [%]"] == pytest.approx(100 * accuracy, abs=5e-4)
        assert (row["n_networks"], row["n_chips"]) == (2, 6)
    progress_file(table).write_text("{")
    assert "progress.json: damaged" in status(tmp_path)
    with pytest.raises(FileNotFoundError):
        status(tmp_path / "nothing")


@pytest.mark.slow
def test_a_killed_study_is_told_from_a_finished_one(tmp_path):
    """By another process, which is what watches a study on a cluster."""
    code = f"""
import time
from pathlib import Path
from analog_samson.locks import sole_writer
from analog_samson.progress import Watch
table = Path({str(tmp_path / "trials.csv")!r})
with sole_writer(table), Watch("s", table, 90, 80, is_shown=False):
    print("there", flush=True)
    time.sleep(60)
"""
    append_rows(some_rows(), tmp_path / "trials.csv")
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"there\n"
        assert "runs on" in status(tmp_path)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(0.1)
        assert "stopped on" in status(tmp_path)
