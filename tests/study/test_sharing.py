"""Claims about writers of a study: one a table, parts that share a study, ends in mid-run."""

import csv
import errno
import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace

import pandas as pd
import psutil
import pytest
from synthetic_trials import make_trials

from analog_samson import Study, collect, load_device, read_trials
from analog_samson.locks import InUseError, sole_writer
from analog_samson.report import write_report
from analog_samson.results import COLUMNS, append_lines, append_rows, as_lines, tables_in
from analog_samson.study import run_trial, unfinished
from analog_samson.study import writing as study_writing
from analog_samson.study.jobs import Part, jobs_of, trials_of
from analog_samson.study.trial import run_together
from analog_samson.study.writing import TableWriter
from analog_samson.times import YEAR


@pytest.fixture
def study(checkpoints):
    return Study("shared", checkpoints, ["pcm_like"], [1, YEAR], n_chips=3, n_test=50)


def lines_of(folder):
    """The lines of all tables of a folder, sorted, without their headers."""
    return sorted(
        line for table in tables_in(folder) for line in table.read_text().splitlines()[1:]
    )


# parts


@pytest.mark.parametrize("chips_together", [1, 2])
def test_parts_together_are_the_study_and_each_gets_its_share_of_every_kind(study, chips_together):
    devices = ["pcm_like", "reram_wan2022"]
    study = replace(study, devices=devices, times_s=[1], chips_together=chips_together)
    trials = study.trials()
    for of in (1, 2, 3, 5, 40):
        parts = [trials_of(Part(i, of), trials, chips_together) for i in range(1, of + 1)]
        together = [trial.chip_id for part in parts for trial in part]
        assert sorted(together) == sorted(trial.chip_id for trial in trials)
        for part in parts:
            sizes = [len(job.trials) for job in jobs_of([(t, t.points) for t in part], 1)]
            assert sizes == [1] * len(part)
        for device in devices:
            groups = [
                len(
                    jobs_of(
                        [(t, t.points) for t in part if t.device.name == device], chips_together
                    )
                )
                for part in parts
            ]
            assert max(groups) - min(groups) <= 1


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "1/0", "-1/2", "1/2/3", "a/b", "", "1 /2"])
def test_a_part_that_is_none_is_refused_before_anything_runs(study, tmp_path, text):
    with pytest.raises(ValueError, match="A part is written i/n with 1 <= i <= n, such as '3/16'"):
        collect(study, tmp_path / "folder", part=text)
    assert not (tmp_path / "folder").exists()


@pytest.mark.slow
@pytest.mark.parametrize("chips_together", [1, 2])
def test_the_union_of_parts_is_the_whole_studys_table_byte_for_byte(
    study, tmp_path, chips_together
):
    study = replace(study, chips_together=chips_together)
    whole = collect(study, tmp_path / "whole")
    collected = [collect(study, tmp_path / "parts", part=f"{i}/3") for i in (2, 1, 3)]
    assert lines_of(tmp_path / "parts") == lines_of(tmp_path / "whole")
    names = [table.name for table in tables_in(tmp_path / "parts")]
    assert names == [f"trials-part{i}of3.csv" for i in (1, 2, 3)]
    pd.testing.assert_frame_equal(collected[-1], whole)
    assert unfinished(study, collected[-1]) == ""
    assert f"{len(collected[0])} of the study's 24 points" in unfinished(study, collected[0])
    assert len(read_trials(tmp_path / "parts")) == len(whole) == 24
    assert (tmp_path / "parts" / "report.html") in write_report(tmp_path / "parts")


def test_tables_of_a_folder_are_in_the_order_of_their_numbers(tmp_path):
    names = ["trials.csv", "trials-part2of3.csv", "trials-part1of12.csv", "trials-part10of12.csv"]
    for name in [*names, "trials-part1of2.csv.lease", "trials-copy.csv", "trials-part0of2.csv"]:
        (tmp_path / name).touch()
    assert [table.name for table in tables_in(tmp_path)] == names


@pytest.mark.slow
def test_another_division_or_none_computes_only_what_no_table_has(study, tmp_path, monkeypatch):
    computed = []

    def counted(trials, points, size):
        computed.extend((trial.chip_id, *point) for trial in trials for point in points)
        return run_together(trials, points, size)

    monkeypatch.setattr("analog_samson.study.collection.run_together", counted)
    for part in ("1/2", "2/3", "1/5", None):
        collect(study, tmp_path, part=part)
    assert len(computed) == len(set(computed)) == 24
    collect(study, tmp_path / "whole")
    assert lines_of(tmp_path) == lines_of(tmp_path / "whole")


def test_equal_rows_of_two_parts_in_flight_merge(study, tmp_path):
    rows = collect(study, tmp_path)
    append_rows(rows.head(5), tmp_path / "trials-part1of2.csv")
    assert len(read_trials(tmp_path)) == len(collect(study, tmp_path)) == 24


# one writer


@pytest.mark.slow
def test_a_second_writer_of_a_study_is_refused_and_parts_are_not(study, tmp_path):
    with sole_writer(tmp_path / "trials.csv"):
        with pytest.raises(
            InUseError, match=rf"trials\.csv' is being written by process {os.getpid()}"
        ):
            collect(study, tmp_path)
        collect(study, tmp_path, part="1/2")
        refused = pytest.raises(InUseError, match=r"trials-part2of2\.csv' is being written")
        with sole_writer(tmp_path / "trials-part2of2.csv"), refused:
            collect(study, tmp_path, part="2/2")


def test_a_finished_study_is_read_whoever_writes(study, tmp_path):
    whole = collect(study, tmp_path)
    with sole_writer(tmp_path / "trials.csv"):
        pd.testing.assert_frame_equal(collect(study, tmp_path), whole)


def test_a_study_of_another_name_is_refused_while_a_part_is_computed_and_after(study, tmp_path):
    other = replace(study, name="other")
    manifest = {"study": {"name": "shared"}}
    (tmp_path / "manifest-part1of2.json").write_text(json.dumps(manifest))
    with (
        sole_writer(tmp_path / "trials-part1of2.csv"),
        pytest.raises(ValueError, match="is being written for the study 'shared', not 'other'"),
    ):
        collect(other, tmp_path, part="2/2")
    assert tables_in(tmp_path) == []
    collect(study, tmp_path, part="1/2")
    for part in ("2/2", None):
        with pytest.raises(ValueError, match="holds the study 'shared', not 'other'"):
            collect(other, tmp_path, part=part)


# manifests


@pytest.mark.slow
def test_the_manifest_lists_everything_that_has_rows(study, tmp_path, monkeypatch):
    """Jobs that follow one another with other networks, devices and commands; then a part."""
    first = replace(study, checkpoints=study.checkpoints[:2])
    second = replace(study, checkpoints=study.checkpoints[2:], devices=["ideal"], times_s=[1])
    for number, one in enumerate((first, second)):
        monkeypatch.setattr(sys, "argv", [f"{number}.py"])
        collect(one, tmp_path)
    collect(replace(study, n_chips=4), tmp_path, part="1/2")
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    names = sorted(path.name for path in study.checkpoints)
    assert sorted(manifest["checkpoints"]) == manifest["study"]["checkpoints"] == names
    assert set(manifest["devices"]) == set(manifest["device_digests"]) == {"pcm_like", "ideal"}
    assert manifest["study"]["devices"] == ["pcm_like", "ideal"]
    assert set(manifest["methods"]) == {"sgd", "rwp"}
    assert manifest["study"]["command"] == "python 0.py\npython 1.py"
    assert len(manifest["environments"]) == 1
    audit = pd.read_csv(tmp_path / "audit.csv")
    assert set(zip(audit["checkpoint"], audit["device"], strict=True)) == {
        (study.checkpoints[0].name, "pcm_like"),
        (study.checkpoints[2].name, "ideal"),
    }
    part = json.loads((tmp_path / "manifest-part1of2.json").read_text())
    assert set(part["devices"]) == {"pcm_like"} and len(part["checkpoints"]) == 4
    assert "reads" not in manifest and write_report(tmp_path)


def test_a_network_without_rows_is_dropped_unless_another_part_computes_it_now(study, tmp_path):
    one, other, third = (replace(study, checkpoints=study.checkpoints[i : i + 1]) for i in range(3))
    collect(one, tmp_path, part="1/2")
    (tmp_path / "trials-part1of2.csv").unlink()
    collect(other, tmp_path, part="2/2")
    listed = json.loads((tmp_path / "manifest.json").read_text())["checkpoints"]
    assert list(listed) == [other.checkpoints[0].name]
    with sole_writer(tmp_path / "trials-part1of2.csv"):
        collect(third, tmp_path)
    listed = json.loads((tmp_path / "manifest.json").read_text())["checkpoints"]
    assert len(listed) == 3


def test_a_device_redefined_under_its_name_is_refused_for_other_networks_too(study, tmp_path):
    collect(replace(study, checkpoints=study.checkpoints[:1]), tmp_path)
    changed = load_device("pcm_like").with_axes({"g_max_uS": 20.0})
    later = replace(study, checkpoints=study.checkpoints[1:], devices=[changed])
    with pytest.raises(
        ValueError, match="'pcm_like' differs from that of the same name in earlier rows"
    ):
        collect(later, tmp_path)


def test_networks_of_one_file_name_are_all_listed(study, tmp_path):
    paths = []
    for number, path in enumerate(study.checkpoints):
        (tmp_path / str(number)).mkdir()
        paths.append(tmp_path / str(number) / "net.safetensors")
        paths[-1].write_bytes(path.read_bytes())
    collect(replace(study, checkpoints=paths, n_chips=1), tmp_path / "study")
    manifest = json.loads((tmp_path / "study" / "manifest.json").read_text())
    assert len({entry["digest"] for entry in manifest["checkpoints"].values()}) == 4


# lines and batches


def test_lines_are_those_that_pandas_writes():
    """Numbers of all sizes, empty texts, texts with commas, quotes and Greek letters, no alpha."""
    rows = make_trials(
        times_s=(0.0, 1e-300, 0.1, 1 / 3, 1e16, 3e7), condition='{"a": 1, "β": "x,y"}'
    )
    rows.loc[::3, "alpha"] = float("nan")
    rows.loc[1::3, "strength"] = ""
    text = io.StringIO()
    rows.to_csv(text, header=False, index=False, lineterminator="\n")
    assert as_lines(rows) == text.getvalue()
    assert as_lines(rows[list(COLUMNS[::-1])]) == text.getvalue()
    assert as_lines(rows.head(0)) == ""


def test_a_worker_refuses_a_row_that_cannot_be_before_it_is_handed_over(
    study, tmp_path, monkeypatch
):
    def wrong(trials, points, size):
        return run_together(trials, points, size) | {"n_correct": [-1] * len(points)}

    monkeypatch.setattr("analog_samson.study.collection.run_together", wrong)
    with pytest.raises(ValueError, match="n_correct = -1; a whole number"):
        collect(study, tmp_path)
    assert tables_in(tmp_path) == []


@pytest.fixture
def lines(study):
    return [as_lines(run_trial(trial)) for trial in study.trials()[:4]]


def test_what_waits_is_written_when_a_block_ends_even_in_an_interruption(
    lines, tmp_path, monkeypatch
):
    """The first rows at once, the others, within the pause of a batch, at the end."""
    monkeypatch.setattr(study_writing, "BATCHES_EVERY_S", 3600.0)
    table = tmp_path / "trials.csv"
    with (
        pytest.raises(KeyboardInterrupt),
        sole_writer(table) as lease,
        TableWriter(table, lease) as writer,
    ):
        for text in lines:
            writer.add(text)
        raise KeyboardInterrupt
    assert table.read_text().splitlines()[1:] == "".join(lines).splitlines()


def test_batches_go_to_disk_while_the_study_runs(lines, tmp_path, monkeypatch):
    monkeypatch.setattr(study_writing, "BATCHES_EVERY_S", 0.01)
    table = tmp_path / "trials.csv"
    with sole_writer(table) as lease, TableWriter(table, lease) as writer:
        for number, text in enumerate(lines, start=1):
            writer.add(text)
            while not table.exists() or len(read_trials(table)) < 2 * number:
                time.sleep(0.01)


def test_a_batch_that_cannot_be_written_ends_the_run(lines, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    table = tmp_path / "trials.csv"
    append_lines(lines[0], table)
    before = table.read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    refused = pytest.raises(OSError, match="the disk is full")
    with refused, sole_writer(table) as lease, TableWriter(table, lease) as writer:
        writer.add(lines[1])
    assert table.read_bytes() == before


def test_a_table_that_another_machine_took_over_gets_no_more_rows(lines, tmp_path):
    table = tmp_path / "trials.csv"
    refused = pytest.raises(InUseError, match="taken over by process 7 on node9")
    with refused, sole_writer(table) as lease, TableWriter(table, lease) as writer:
        theirs = {"process": 7, "host": "node9", "boot": "", "since": "now", "token": ""}
        (tmp_path / "trials.csv.lease").write_text(json.dumps(theirs))
        writer.add(lines[0])
    assert not table.exists()


# ends in mid-run


@pytest.fixture
def script(study, tmp_path):
    """A study of many chips with two workers, as a command."""
    file = tmp_path / "script.py"
    file.write_text(
        textwrap.dedent(f"""
        from analog_samson import Study, collect
        from analog_samson.commands import run_command
        study = Study(
            "shared", {[str(path) for path in study.checkpoints]!r}, ["pcm_like"], [1, {YEAR}],
            n_chips=10_000, n_test=50,
        )
        def main() -> None:
            collect(study, {str(tmp_path / "killed")!r}, jobs=2)
        if __name__ == "__main__":
            run_command(main)
        """)
    )
    return file


def ended(script, folder, number):
    """Start the script, send it a signal when it has 20 rows; its end and its workers."""
    arguments = [sys.executable, str(script)]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        table = folder / "trials.csv"
        while not table.exists() or table.read_bytes().count(b"\n") < 20:
            assert process.poll() is None
            time.sleep(0.05)
        workers = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        _, said = process.communicate()
    assert len(workers) >= 2
    return process.returncode, said, workers


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGTERM, 143, "Terminated"), (signal.SIGINT, 130, "Interrupted")],
)
def test_a_signal_ends_a_run_with_workers_in_a_sentence_and_it_resumes(
    script, study, tmp_path, number, code, word
):
    folder = tmp_path / "killed"
    returned, said, workers = ended(script, folder, number)
    assert returned == code
    assert said == f"{word}; what was finished is kept, start again to resume.\n"
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert alive == []
    assert not list(folder.glob("*.lock")) and not list(folder.glob("*.lease"))
    content = (folder / "trials.csv").read_text()
    assert content.endswith("\n")
    assert {len(fields) for fields in csv.reader(io.StringIO(content))} == {len(COLUMNS)}
    collect(study, folder)
    collect(study, tmp_path / "whole")
    assert set(lines_of(tmp_path / "whole")) <= set(lines_of(folder))


@pytest.mark.slow
def test_workers_end_when_their_owner_is_killed(script, tmp_path):
    returned, _, workers = ended(script, tmp_path / "killed", signal.SIGKILL)
    assert returned == -signal.SIGKILL
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert alive == []


def test_a_command_restores_how_sigterm_is_handled():
    from analog_samson.commands import run_command

    before = signal.getsignal(signal.SIGTERM)
    seen = []
    run_command(lambda: seen.append(signal.getsignal(signal.SIGTERM)), [])
    assert signal.getsignal(signal.SIGTERM) is before is not seen[0]
    thread = threading.Thread(target=run_command, args=(lambda: seen.append("ran"), []))
    thread.start()
    thread.join()
    assert seen[1:] == ["ran"]


@pytest.mark.slow
@pytest.mark.parametrize("n_bytes", [0, 100, 2000])
def test_a_limit_of_file_sizes_is_said_with_the_file_and_leaves_nothing_behind(
    study, tmp_path, n_bytes
):
    folder = tmp_path / "limited"
    limited = textwrap.dedent(f"""
        import resource, signal
        from analog_samson import Study, collect
        from analog_samson.commands import run_command
        def main() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            study = Study("s", {[str(study.checkpoints[0])]!r}, ["ideal"], [1], n_chips=20)
            resource.setrlimit(resource.RLIMIT_FSIZE, ({n_bytes}, {n_bytes}))
            collect(study, {str(folder)!r})
        run_command(main)
    """)
    done = subprocess.run([sys.executable, "-c", limited], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"'{folder}/" in done.stderr and "cannot be written" in done.stderr
    assert "above the limit" in done.stderr or "no row was added" in done.stderr
    assert "Free space" in done.stderr and "Traceback" not in done.stderr
    left = {path.name for path in folder.iterdir()}
    assert not any(".lease" in name or ".lock" in name or name.endswith(".tmp") for name in left)


def test_no_workers_are_refused_before_anything_is_written(study, tmp_path):
    with pytest.raises(ValueError, match="jobs must be at least 1"):
        collect(study, tmp_path / "none", jobs=0)
    assert not (tmp_path / "none").exists()
