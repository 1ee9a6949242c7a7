"""Studies of scores other than accuracy, from the forward pass of a chip to the page."""

import hashlib
import json
import re
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from places import ROOT
from torch.nn import functional

from analog_samson import Study, collect, read_trials, summarise
from analog_samson.checkpoint import TrainingSpec, load_checkpoint
from analog_samson.chip import program
from analog_samson.data import load_dataset, load_test
from analog_samson.report import write_report
from analog_samson.results import SCORE_COLUMNS, estimated_score
from analog_samson.study import NUMERICS_VERSION, accuracy_by_layer, accuracy_by_stage, load_study
from analog_samson.study.trial import images_of, one_thread
from analog_samson.times import DAY, HOUR, YEAR
from analog_samson.training import train


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    return [train(TrainingSpec(seed=seed, epochs=1), folder) for seed in (0, 1)]


@pytest.fixture
def study(checkpoints):
    return Study(
        "small", checkpoints, ["pcm_like"], [0, HOUR], n_chips=2, n_test=150, score="cross_entropy"
    )


@pytest.fixture
def own_score(tmp_path, monkeypatch):
    """A module with scores, on the path of this process; forgotten at the end."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "scores_of_mine.py").write_text(
        "import torch\n"
        "from analog_samson import score\n"
        "@score('lower', label='Brier score', unit='units', decimals=4)\n"
        "def brier(outputs, targets):\n"
        "    wanted = torch.nn.functional.one_hot(targets, outputs.shape[-1])\n"
        "    return ((outputs.softmax(-1) - wanted) ** 2).sum(-1)\n"
        "@score('higher')\n"
        "def flat(outputs, targets):\n"
        "    return outputs\n"
        "@score('higher')\n"
        "def broken(outputs, targets):\n"
        "    raise RuntimeError('cannot')\n"
        "@score('higher')\n"
        "def margin(outputs, targets):\n"
        "    return 0 * outputs[:, 0] / 0\n"
        "def bare(outputs, targets):\n"
        "    return targets\n"
        "number = 3\n"
        "@score('higher')\n"
        "def alpha(outputs, targets):\n"
        "    return outputs[:, 0]\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "code")
    yield "scores_of_mine:brier"
    sys.modules.pop("scores_of_mine", None)


def lines_of(folder):
    first, *rows = (folder / "trials.csv").read_text().splitlines()
    return [first, *sorted(rows)]


def losses(forward, checkpoint, n_test=150):
    test = load_test("digits")
    with torch.no_grad(), one_thread():
        outputs = forward(checkpoint.normalise(test.images[:n_test]))
    return functional.cross_entropy(outputs.double(), test.labels[:n_test], reduction="none")


def test_sums_are_those_of_torch_on_the_digital_network_and_on_the_chip(study, tmp_path):
    rows = collect(study, tmp_path)
    assert tuple(rows.columns) == SCORE_COLUMNS
    assert set(rows["score"]) == {"cross_entropy"}
    assert not rows["higher_is_better"].any()
    checkpoint = load_checkpoint(study.checkpoints[1])
    own = rows[rows["checkpoint"] == checkpoint.digest[:16]]
    digital = losses(checkpoint.build(), checkpoint)
    for _, row in own.iterrows():
        chip = program(checkpoint, "pcm_like", seed=int(row["programming_seed"]))
        values = losses(chip.drift_to(row["t_inference_s"]), checkpoint)
        expected = {
            "sum": values.sum(),
            "sum_squares": (values**2).sum(),
            "sum_digital": digital.sum(),
            "sum_squares_digital": (digital**2).sum(),
            "sum_products": (values * digital).sum(),
            "sum_digital_test": digital.sum(),
        }
        for name, value in expected.items():
            assert row[name] == pytest.approx(float(value), rel=1e-6), name  # fp32 outputs
    assert own["sum_digital"].iloc[0] == pytest.approx(float(digital.sum()), rel=1e-12)


def test_the_squared_error_of_a_regression_goes_from_the_chip_to_its_table(tmp_path):
    draws = np.random.default_rng(0)
    x = draws.normal(size=(460, 5)).astype(np.float32)
    y = (x @ draws.normal(size=(5, 2))).astype(np.float32)
    data = tmp_path / "sums.npz"
    np.savez(data, x_train=x[:300], y_train=y[:300], x_test=x[300:], y_test=y[300:])
    spec = TrainingSpec(dataset=str(data), model="mlp", model_kwargs={"hidden": [8]}, epochs=2)
    path = train(spec, tmp_path, data_folder=data)
    study = Study("sums", [path], ["pcm_like"], [HOUR], n_chips=2, dataset=data, score="mse")
    with pytest.raises(ValueError, match="'accuracy' is for classification, and '.*' is a .*regr"):
        replace(study, score="accuracy").trials()
    rows = collect(study, tmp_path / "study")
    checkpoint, test = load_checkpoint(path), load_dataset(str(data)).test
    with torch.no_grad(), one_thread():
        outputs = checkpoint.build()(checkpoint.normalise(test.images))
    digital = ((outputs.double() - test.labels.double()) ** 2).mean(1)
    assert rows["sum_digital"].to_numpy() == pytest.approx(float(digital.sum()), rel=1e-9)
    assert ((rows["sum"] - rows["sum_digital"]).abs() < 0.2 * rows["sum_digital"]).all()
    assert "iso_mse.md" not in {path.name for path in write_report(tmp_path / "study")}


@pytest.mark.slow
def test_workers_order_and_a_later_time_change_no_byte(study, tmp_path):
    collect(study, tmp_path / "one")
    collect(study, tmp_path / "two", jobs=2)
    collect(replace(study, times_s=[HOUR], n_chips=1), tmp_path / "later")
    backwards = replace(study, checkpoints=study.checkpoints[::-1], times_s=[HOUR, 0])
    collect(backwards, tmp_path / "later")
    for other in ("two", "later"):
        assert lines_of(tmp_path / "one") == lines_of(tmp_path / other)


def test_on_subsets_sums_are_over_the_chips_own_samples(study, tmp_path):
    some = replace(study, n_images_per_chip=40, times_s=[HOUR])
    rows = collect(some, tmp_path / "some").set_index("chip_id")
    every = collect(replace(study, times_s=[HOUR]), tmp_path / "every")
    for trial in some.trials():
        checkpoint = load_checkpoint(trial.checkpoint_path)
        digital = losses(checkpoint.build(), checkpoint)
        row, chosen = rows.loc[trial.chip_id], images_of(trial)
        assert row["sum_digital"] == pytest.approx(float(digital[chosen].sum()), rel=1e-12)
        assert row["sum_digital_test"] == pytest.approx(float(digital.sum()), rel=1e-12)
    of_chip = ["checkpoint", "chip"]
    whole = estimated_score(every.set_index(of_chip))
    rows = rows.set_index(of_chip)
    plain = (rows["sum"] / rows["n_images_per_chip"] - whole).abs().mean()
    assert (estimated_score(rows) - whole).abs().mean() < 0.5 * plain


def test_the_score_belongs_to_a_chips_identity_unless_it_is_accuracy(study):
    trial, plain = study.trials()[0], replace(study, score="accuracy").trials()[0]
    identity = [
        plain.checkpoint,
        plain.device.digest,
        plain.programming_seed,
        plain.engine,
        plain.precision,
        plain.evaluation_set,
        plain.n_test,
        NUMERICS_VERSION,
    ]

    def digest(parts):
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    assert plain.chip_id == digest(identity)
    assert trial.chip_id == digest([*identity, "cross_entropy"])
    assert "score" not in plain.labels


def test_a_folder_holds_one_score(study, tmp_path):
    collect(study, tmp_path)
    before = (tmp_path / "trials.csv").read_bytes()
    for other in ("accuracy", "top5"):
        with pytest.raises(ValueError, match=f"holds the score 'cross_entropy', and .* '{other}'"):
            collect(replace(study, score=other), tmp_path)
    assert (tmp_path / "trials.csv").read_bytes() == before


def test_a_study_file_names_its_score_and_cannot_grant_trust(study, tmp_path, own_score):
    file = tmp_path / "study.toml"
    text = (
        f'name = "small"\ncheckpoints = ["{study.checkpoints[0]}"]\ndevices = ["pcm_like"]\n'
        'times_s = [1.0]\nscore = "{}"\n'
    )
    file.write_text(text.replace("{}", "cross_entropy"))
    assert load_study(file).trials()[0].score == "cross_entropy"
    file.write_text(text.replace("{}", own_score))
    with pytest.raises(ValueError, match="requires the import of 'scores_of_mine:brier'.*--trust"):
        load_study(file)
    assert "scores_of_mine" not in sys.modules
    assert load_study(file, ["scores_of_mine"]).trials()[0].score == own_score
    file.write_text(text.replace('"{}"', "3"))
    with pytest.raises(ValueError, match="score"):
        load_study(file)


WRONG = [
    ("accurracy", "Unknown score 'accurracy'.*[Dd]id you mean 'accuracy'"),
    ("mse", "score 'mse' is for regression, and 'digits' is a data set for classification"),
    ("token_accuracy", "score 'token_accuracy' is for tokens"),
    ("scores_of_mine:flat", r"score 'scores_of_mine:flat' returned \(2, 10\) for outputs"),
    ("scores_of_mine:broken", "raised RuntimeError for outputs .*: cannot"),
    ("scores_of_mine:margin", "is nan for sample 0; it must be finite"),
    ("scores_of_mine:bare", r"does not say which values are better; put the decorator"),
    ("scores_of_mine:brie", "Did you mean 'brier'"),
    ("scores_of_mine:number", "is a int; name a class or a function"),
    ("scores_of_mine:alpha", "would be the column 'alpha' of summaries"),
    ("no_such_module:f", "cannot be imported"),
]


@pytest.mark.parametrize(("name", "said"), WRONG)
def test_a_wrong_score_is_refused_before_anything_runs(study, tmp_path, own_score, name, said):
    with pytest.raises(ValueError, match=said):
        collect(replace(study, score=name), tmp_path / "results")
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_a_report_shows_an_own_score_without_its_function(study, tmp_path, own_score):
    folder = tmp_path / "results"
    rows = collect(replace(study, score=own_score, times_s=[1, DAY, YEAR]), folder)
    assert rows["sum"].between(0, 2 * 150).all()
    sys.modules.pop("scores_of_mine")
    sys.path.remove(str(tmp_path / "code"))
    names = {path.name for path in write_report(folder)}
    assert {"brier.md", "brier.pdf", "lifetime.tex", "report.html"} <= names
    assert "iso_brier.md" not in names, "no value for guessing"
    text = (folder / "brier.md").read_text()
    assert text.startswith("### Brier score [units] (lower is better) against time since")
    assert re.search(r"\| 0\.\d{4} ± 0\.\d{4}", text)
    page = (folder / "report.html").read_text()
    assert "Every chip over time" in page
    assert "Brier score of each chip and their mean" in page
    assert "scores_of_mine" not in sys.modules
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["scores"] == {
        own_score: {
            "label": "Brier score",
            "unit": "units",
            "decimals": 4,
            "is_higher_better": False,
        }
    }
    manifest["scores"][own_score]["decimals"] = "four"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="The description of score 'scores_of_mine:brier' must"):
        write_report(folder)


def test_the_breakdown_of_a_score_ends_at_the_studys_chips(study, tmp_path):
    rows = collect(study, tmp_path)
    path = study.checkpoints[0]
    options = {"chips": 2, "n_test": 150, "score": "cross_entropy"}
    stages = accuracy_by_stage(path, "pcm_like", HOUR, **options)
    assert list(stages.columns[:2]) == ["score", "higher_is_better"]
    last = stages[stages["stage"] == "compensated"].set_index("chip")["cross_entropy"]
    own = (
        rows[(rows["training_seed"] == 0) & (rows["t_inference_s"] == HOUR)]
        .set_index("chip")
        .sort_index()
    )
    pd.testing.assert_series_equal(last, own["sum"] / 150, check_names=False, rtol=1e-12)
    digital = stages[stages["stage"] == "digital"]["cross_entropy"]
    assert digital.to_numpy() == pytest.approx(own["sum_digital"] / 150, rel=1e-12)
    layers = accuracy_by_layer(path, "pcm_like", HOUR, **options)
    assert (layers["clean_cross_entropy"] == digital.iloc[0]).all()


@pytest.mark.slow
def test_the_example_of_the_page_about_scores_runs(tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "SCORES.md").read_text(), re.S)
    module, script = blocks
    (tmp_path / "my_scores.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    shown = []
    try:
        exec(script.replace("print(", "shown.append("), {"shown": shown})
    finally:
        sys.modules.pop("my_scores", None)
    assert len(shown[0]) == 2
    assert (tmp_path / "results" / "brier" / "report.html").is_file()
    assert summarise(read_trials("results/brier"))["brier"].between(0, 2).all()
