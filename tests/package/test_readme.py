"""Every block of the README and of these pages runs as it stands, or what it names is there."""

import configparser
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

from analog_samson.console import COMMANDS as CONSOLE
from analog_samson.report import study_advice, study_tables
from analog_samson.results import COLUMNS, SCORE_COLUMNS, paired_gain, read_trials
from analog_samson.study import load_study
from analog_samson.times import YEAR

README = (ROOT / "README.md").read_text(encoding="utf-8")
NAMES = ("CITING", "COMMANDS", "DEVICE", "GLOSSARY", "METHOD", "MNIST", "SPEED", "START", "TABLES")
PAGES = {name: (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in NAMES}
MNIST = ROOT / "results" / "mnist-methods"
TASKS = (MNIST, ROOT / "results" / "spoken-lstm")
BLOCKS = [
    (page, kind, text)
    for page, content in ({"README": README} | PAGES).items()
    for kind, text in re.findall(r"^```(\w+)\n(.*?)^```", content, re.M | re.S)
    if "my_cells" not in text  # run by devices/test_own_law.py
]
IN_A_WHEEL = ("START",)  # run by test_console.py, as they stand and where nothing else is
PYTHON = [text for page, kind, text in BLOCKS if kind == "python" and page not in IN_A_WHEEL]
LINES = [line for _, kind, text in BLOCKS if kind == "console" for line in text.splitlines()]
COMMANDS = [shlex.split(line, comments=True) for line in LINES]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}

# One process for all of them: torch loads once. Workers of their own would cost seconds each.
DRIVER = """
import runpy, sys, json
from pathlib import Path

def expanded(word):
    return sorted(map(str, Path().glob(word))) if "*" in word else [word]

for script, *words in json.loads(sys.argv[1]):
    words = [part for word in words for part in expanded(word)]
    source = Path(script).read_text(encoding="utf-8")
    sys.argv = [script, *words, *(["--jobs", "1"] if "    jobs: int" in source else [])]
    runpy.run_path(script, run_name="__main__")
"""


def test_the_readme_is_a_page():
    assert 60 <= len(README.splitlines()) <= 90
    assert [kind for page, kind, _ in BLOCKS if page == "README"] == [
        "console",
        "console",
        "python",
    ]
    assert len(PYTHON) >= 5


@pytest.mark.slow
@pytest.mark.parametrize("block", PYTHON, ids=range(len(PYTHON)))
def test_python_runs(block, tmp_path):
    subprocess.run([sys.executable, "-c", block], cwd=tmp_path, env=ENVIRONMENT, check=True)


@pytest.mark.slow
def test_commands_run_and_the_study_file_describes_what_they_trained(tmp_path):
    scripts = [words[1:] for words in COMMANDS if words[0] == "python"]
    assert {Path(words[0]).stem for words in scripts} >= {"drift_sweep", "paper_figures"}
    here = [[str(ROOT / words[0]), *words[1:]] for words in scripts]
    arguments = [sys.executable, "-c", DRIVER, json.dumps(here)]
    done = subprocess.run(
        arguments, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for written in ("results/drift/report.html", "slides/sharpness.svg", "tables/accuracy.tex"):
        assert (tmp_path / written).stat().st_size > 0
    study, axes, *_ = [text for page, kind, text in BLOCKS if (page, kind) == ("COMMANDS", "toml")]
    (tmp_path / "study.toml").write_text(study, encoding="utf-8")
    assert len(load_study(tmp_path / "study.toml").trials()) == 4 * 2 * 2 * 5
    grid = study.partition("[axes]")[0].replace(', "reram_wan2022"]', "]") + axes
    (tmp_path / "study.toml").write_text(grid, encoding="utf-8")
    assert len(load_study(tmp_path / "study.toml").trials()) == 4 * 3 * 3 * 2 * 5
    parts_of_a_job_array_are_the_study(tmp_path)


def parts_of_a_job_array_are_the_study(folder):
    """The tasks of the array of SPEED.md, two of them, on one of the networks just trained."""
    (job,) = [text for page, kind, text in BLOCKS if (page, kind) == ("SPEED", "bash")]
    (folder / "experiments").symlink_to(ROOT / "experiments")
    (network, *_) = sorted((folder / "networks").glob("*.safetensors"))
    (folder / "study.toml").write_text(
        f'name = "array"\ncheckpoints = ["networks/{network.name}"]\ndevices = ["pcm_like"]\n'
        "times_s = [1.0, 3600.0]\nn_chips = 3\n"
    )
    job = job.replace("results/drift", "results/array").replace("--jobs 4", "--jobs 1")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for task in ("1", "2"):
        slurm = {"SLURM_ARRAY_TASK_ID": task, "SLURM_ARRAY_TASK_COUNT": "2", "PATH": path}
        subprocess.run(["bash", "-c", job], cwd=folder, env=ENVIRONMENT | slurm, check=True)
        assert (folder / "results/array/report.html").exists() == (task == "2")
    assert len(read_trials(folder / "results" / "array")) == 3 * 2


@pytest.mark.slow
def test_the_table_and_the_findings_are_those_of_the_committed_study():
    page = PAGES["MNIST"]
    rows = read_trials(MNIST)
    blocks = {b.title: b.cells for b in study_tables(rows, scale="accuracy")["accuracy"].blocks}
    cells = {title: block.set_index("method") for title, block in blocks.items()}
    columns = (
        ("PCM (pcm_like), global compensation", "1 y†"),
        ("PCM (pcm_like), no compensation", "1 d"),
        ("PCM (pcm_hermes), no compensation", "1 y†"),
        ("ReRAM (reram_wan2022), no compensation", "2 d"),
        ("ReRAM (reram_cmo), global compensation", "1 y†"),
    )
    first = cells[columns[0][0]]
    assert len(first) == 14
    for method in first.index:
        line = [method, first.at[method, "digital"]]
        line += [cells[title].at[method, time].removesuffix(" °") for title, time in columns]
        assert f"| {' | '.join(line)} |" in page
    late = rows[rows["t_inference_s"] == YEAR]
    late = late[(late["device"] == "pcm_like") & (late["compensation"] == "global")]
    gains = paired_gain(late, scale="accuracy").set_index(["method", "strength"])
    text = " ".join(page.split())
    for key, sentence in (
        (("sgd", "clip_weights=1.5"), "gains {} points over SGD after a year on PCM"),
        (("samson", "rho=0.2"), "gains {} points over SGD after a year there"),
    ):
        gain, width = gains.loc[key, ["gain", "half_width"]]
        assert sentence.format(f"{100 * gain:.2f} ± {100 * width:.2f}") in text


@pytest.mark.slow
def test_the_advice_of_the_readme_is_that_of_the_committed_studies():
    """Choice, largest regret and gain of every situation; the best methods of each task."""
    _, tables = study_advice(read_trials(*TASKS), folders=TASKS, scale="accuracy")
    advice = tables["advice"].blocks[0].cells.set_index("situation")
    labels = {"SAMSON clip": "SAMSON clipping", "SGD clip": "SGD clipping"}
    lines = re.findall(r"^\| ((?:no idea|any hardware|PCM,|ReRAM,).+) \|$", README, re.M)
    assert len(lines) == 6
    for situation, *said in (line.split(" | ") for line in lines):
        columns = ["choose", "regret", "gain", "cost", "again"]
        choice, *numbers = advice.loc[situation, columns]
        assert said == [labels.get(choice, choice), *numbers]
    others = tables["advice"].blocks[1].cells.set_index("situation")["measured times alone"]
    rows = read_trials(*TASKS)
    _, measured = study_advice(
        rows[~rows["extrapolated"].astype(bool)], folders=TASKS, scale="accuracy"
    )
    regrets = measured["advice"].data.set_index(["situation", "method", "strength"])
    clipping = 100 * regrets.at[("no idea of the hardware", "sgd", "clipping"), "largest_regret"]
    unknown = [others[one] for one in ("no idea of the hardware", "PCM, no compensation")]
    assert set(unknown) == {"SAMSON: 2.71"}
    assert f"is SAMSON\n(2.71; clipping {clipping:.2f})" in README
    elsewhere = ["any hardware, global compensation", "PCM, global compensation",
                 "ReRAM, no compensation", "ReRAM, global compensation"]  # fmt: skip
    method, _, regrets = zip(*(others[one].partition(": ") for one in elsewhere), strict=True)
    assert list(method) == list(advice.loc[elsewhere, "choose"])
    assert f"elsewhere that of the table ({max(regrets)} or less)" in README
    maps = [table.data for name, table in tables.items() if name.startswith("methods_map")]
    names = ((cells["method"] + " " + cells["strength"]).str.strip() for cells in maps)
    mnist, lstm = (one.value_counts() for one in names)
    for page in (README, PAGES["MNIST"]):
        assert f"weight clipping in {mnist['sgd clipping']} of {mnist.sum()} cells" in page
    assert (
        f"SAMSON with clipping in {lstm['samson clipping']} of {lstm.sum()} cells, SAMSON in "
        f"{lstm['samson']}, ASAM in {lstm['asam']}]" in README
    )
    assert set(mnist.index) == {"sgd clipping", "hardware_aware"}
    assert set(lstm.index) == {"samson clipping", "samson", "asam"}
    assert not any(cells["is_decided"].any() for cells in maps)  # as the README says
    shown = sum(int((cells["low"] > 0).sum()) for cells in maps)
    n_cells = mnist.sum() + lstm.sum()
    assert (
        f"(Holm's correction over {n_cells} cells); its gain over SGD is shown in {shown}" in README
    )
    last = maps[0][(maps[0]["compensation"] == "none") & (maps[0]["t_inference_s"] == YEAR)]
    best = last.set_index("device")["best_mean"]
    late = maps[1][(maps[1]["compensation"] == "none") & (maps[1]["t_inference_s"] == YEAR)]
    of_lstm = {row.device: (row.strength or row.method, row.best_mean) for row in late.itertuples()}
    keeps = [f"{100 * of_lstm[one][1]:.1f}" for one in ("pcm_hermes", "pcm_like")]
    assert [of_lstm[one][0] for one in ("pcm_hermes", "pcm_like")] == ["clipping", "asam"]
    assert f"SAMSON with clipping has {keeps[0]} % on `pcm_hermes`" in README
    assert f"ASAM {keeps[1]} % on `pcm_like`" in README
    assert f"clipping keeps {100 * best['pcm_hermes']:.1f} %" in README
    assert 0.43 < best["pcm_like"] < 0.44


@pytest.mark.slow
def test_the_regrets_of_the_page_of_studies_are_those_of_the_committed_studies():
    """Line by line: all cells, then without the latest, then without any, of PCM as it drifts."""
    page = (ROOT / "docs" / "STUDIES.md").read_text(encoding="utf-8")
    shown = [line for line in page.splitlines() if line.startswith(("| all ", "| without PCM"))]
    lines = [line.strip("| ").split(" | ") for line in shown]
    order = ["sgd", "sgd clipping", "noise_injection", "hardware_aware", "rwp", "sam", "asam",
             "samson", "samson clipping"]  # fmt: skip
    rows = read_trials(*TASKS)
    drifts = rows["device"].str.startswith("pcm") & (rows["compensation"] == "none")
    for line, kept in zip(
        lines, (drifts | True, ~(drifts & (rows["t_inference_s"] == YEAR)), ~drifts), strict=True
    ):
        _, tables = study_advice(rows[kept], folders=TASKS, scale="accuracy")
        advice = tables["advice"].data
        advice = advice[
            (advice["situation"] == "no idea of the hardware") & (advice["n_tasks"] == 2)
        ]
        names = (advice["method"] + " " + advice["strength"]).str.strip()
        regrets = 100 * advice["largest_regret"].set_axis(names)
        assert [f"{regrets[name]:.2f}" for name in order] == line[1:]
        assert str(advice["n_cells"].iloc[0]) in line[0]


@pytest.mark.slow
def test_the_rows_that_explain_tables_are_those_of_the_committed_study():
    shown = [line for line in PAGES["TABLES"].splitlines() if line.startswith("| SAMSON")]
    texts = [(MNIST / f"{name}.md").read_text(encoding="utf-8") for name in ("accuracy", "gain")]
    for line, text in zip(shown, texts, strict=True):
        (block,) = [b for b in text.split("\n**") if b.startswith("PCM (pcm_like), global")]
        (row,) = [row for row in block.splitlines() if row.startswith("| SAMSON ρ = 0.2  ")]
        cells = [cell.strip() for cell in row.strip("| ").split("|")]
        assert [cell.strip() for cell in line.strip("| ").split("|")][-2:] == cells[-2:]


def test_the_glossary_has_every_column():
    """Every column of trials.csv has a row of its own, and no term has two."""
    glossary = PAGES["GLOSSARY"]
    terms = re.findall(r"^\| (?!term|:)(.+?) \| .+ \| .+ \|$", glossary, re.M)
    assert not set(COLUMNS) - {term.strip("`") for term in terms}
    assert len(set(terms)) == len(terms)
    assert not {column for column in SCORE_COLUMNS if f"`{column}`" not in glossary}


def test_what_the_other_commands_name_is_there():
    other = [words for words in COMMANDS if words[0] != "python"]
    assert {words[0] for words in other} == {"analog-samson", "make", "pip", "python3"}
    made = [words[1] for words in other if words[0] == "make"]
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert set(made) <= set(targets)
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    extras = {extra for line in LINES for extra in re.findall(r"\.\[(\w+)\]", line)}
    assert extras <= set(settings["options.extras_require"])


def test_scripts_and_files_that_the_text_names_are_there():
    for page, text in ({"../README": README} | PAGES).items():
        for script in re.findall(r"`(?:experiments/)?(\w+\.py)`", text):
            assert (ROOT / "experiments" / script).is_file(), script
        for path in re.findall(r"\]\(([^)#:\s]+)[)#]", text):
            assert (ROOT / "docs" / page).parent.joinpath(path).exists(), path


def test_the_page_of_commands_has_every_command():
    table = PAGES["COMMANDS"].partition("| question |")[2].partition("\n\n")[0]
    cells = [line.split("|") for line in table.splitlines()[2:]]
    named = [name for cell in cells for name in re.findall(r"`([\w-]+)`", cell[2])]
    scripts = [name for cell in cells for name in re.findall(r"`(\w+)\.py`", cell[3])]
    assert dict(zip(named, scripts, strict=True)) == CONSOLE
