"""Verdicts on claims, of a made-up study and of the committed ones."""

import gzip
import importlib.util
import shutil
import tomllib

import numpy as np
import pandas as pd
import pytest
from places import ROOT
from scipy import stats
from synthetic_trials import trials_with

from analog_samson.results import append_rows, read_trials, trials
from analog_samson.results.measures import IncompleteError
from analog_samson.training import evidence_of

spec = importlib.util.spec_from_file_location("verdicts", ROOT / "experiments" / "verdicts.py")
verdicts = importlib.util.module_from_spec(spec)
spec.loader.exec_module(verdicts)

PROTOCOL = """
symbol = "M"
seeds = [0, 1, 2]
grid_seed = 100
grid_epochs = 1
studies = ["study.toml", "../made-noise/study.toml"]

[common]
dataset = "digits"
model = "mlp"

[methods]
sgd = "sgd"
sam = "sam:rho=0.1,0.2"
gentle = "sam:rho=0.01:clip_weights=2.0"

[claims.better]
claim = "SAM is better than SGD."
number = 1
tests = [{ measure = "gain", method = "sam", over = "sgd", device = "pcm_like", above = 0.0 }]

[claims.better_digital]
claim = "SAM is better than SGD and gentle SAM without noise."
number = 2
tests = [
    { measure = "gain", method = "sam", over = "sgd", device = "digital", above = 0.0 },
    { measure = "gain", method = "sam", over = "gentle", device = "digital", above = 0.0 },
]

[claims.worse]
claim = "Gentle SAM is better than SAM under noise."
number = 12
tests = [
    { measure = "gain", method = "gentle", over = "sam", device = "gaussian_max", above = 0.0 },
]
"""

START = '[start_from]\nsam = "sgd"\n\n[common]'

PAGE = r"""
| # | claim | what is run | primary endpoint | ours | verdict |
|--:|:--|:--|:--|:--|:--|
| 1 | better | M, C | gain in max\|w\| | | open |
| 2 | better, twice | M | gains | old | holds |
| 3 | by hand | - | - | | cannot be tested |
| 12 | worse | M | gain | | open |
"""

ACCURACIES = {
    "sgd": [[0.800, 0.802], [0.790, 0.788], [0.810, 0.811]],
    "sam rho=0.2": [[0.821, 0.822], [0.809, 0.811], [0.830, 0.832]],
    "sam rho=0.01 clip_weights=2": [[0.811, 0.812], [0.800, 0.799], [0.822, 0.820]],
}

VARIANTS = dict(zip(ACCURACIES, ["sgd", "sam", "gentle"], strict=True))


def make_study(results, accuracies=ACCURACIES, name="made"):
    """A finished study of three methods and three training seeds, and the noise study beside it."""
    digital = {"sgd": [0.84, 0.85, 0.84], "sam rho=0.2": [0.86, 0.87, 0.87],
               "sam rho=0.01 clip_weights=2": [0.86, 0.86, 0.88]}  # fmt: skip
    folder, noise = results / f"{name}-methods", results / f"{name}-noise"
    folder.mkdir(parents=True)
    noise.mkdir()
    (folder / "protocol.toml").write_text(PROTOCOL.replace("../made", f"../{name}"))
    rows = trials_with(accuracies, digital=digital, study=folder.name)
    digests = {c: f"{k:016x}" for k, c in enumerate(rows["checkpoint"].unique(), start=10)}
    rows["checkpoint"] = rows["checkpoint"].map(digests)
    append_rows(rows, folder / "trials.csv")
    other = rows.assign(device="gaussian_max", study=noise.name, chip_id="noise" + rows["chip_id"])
    append_rows(other, noise / "trials.csv")
    networks = rows.drop_duplicates("checkpoint")
    names = (networks["method"] + " " + networks["strength"]).str.strip()
    table = networks[["method", "strength", "training_seed"]].assign(
        variant=names.map(VARIANTS), digest=networks["checkpoint"] + "f" * 48, failure=""
    )
    table.to_csv(folder / "networks.csv", index=False)
    return folder


@pytest.mark.slow
def test_a_finished_study_is_judged(tmp_path):
    make_study(tmp_path)
    table = verdicts.verdicts(tmp_path)
    assert list(table["verdict"]) == ["holds", "holds", "not shown", "the opposite"]
    first = table.iloc[0]
    assert (first["n"], first["n_of"], first["n_chips"]) == ("3", "networks", "2")
    gains = np.array([2.05, 2.1, 2.05])  # points, mean of two chips, by seed
    half = 4.30265273 * gains.std(ddof=1) / 3**0.5
    assert [float(first[k]) for k in ("value", "low", "high")] == pytest.approx(
        [gains.mean(), gains.mean() - half, gains.mean() + half], rel=1e-5
    )


def test_the_table_of_each_study_is_read_once(tmp_path, monkeypatch):
    folder, read = make_study(tmp_path), []
    real = trials.read_table
    monkeypatch.setattr(trials, "read_table", lambda file: read.append(file) or real(file))
    trials._read.cache_clear()
    evidence = evidence_of(folder)
    assert [file.parent.name for file in read] == ["made-methods", "made-noise"]
    both = read_trials(folder, folder.parent / "made-noise")
    pd.testing.assert_frame_equal(evidence.rows, both)
    noise = folder.parent / "made-noise" / "trials.csv"
    lines = noise.read_text().splitlines(keepends=True)
    noise.write_text("".join(lines[:-1]))
    with pytest.raises(IncompleteError, match="the same rows in ../made-noise"):
        evidence_of(folder)


@pytest.mark.slow
def test_the_page_says_what_the_table_says(tmp_path):
    make_study(tmp_path)
    results, page = tmp_path, tmp_path / "page.md"
    page.write_text(PAGE)
    verdicts.main(results, page, write=True)
    lines = page.read_text().splitlines()
    ours = "M: +2.067 ± 0.072 (n = 3 networks)"
    assert lines[3] == rf"| 1 | better | M, C | gain in max\|w\| | {ours} | holds‡ |"
    cells = lines[4].split("|")
    assert cells[-2] == " does not hold (1 holds‡, 1 not shown) "
    assert cells[-3] == " M: +2.3 ± 1.4, +0.0 ± 2.5 (n = 3 networks) "
    assert lines[5] == PAGE.splitlines()[5]
    assert lines[6].endswith("| does not hold (the opposite‡) |")
    before = page.read_bytes(), (results / "verdicts.csv").read_bytes()
    verdicts.main(results, page, write=True)
    assert (page.read_bytes(), (results / "verdicts.csv").read_bytes()) == before
    page.write_text(PAGE.replace("| 12 |", "| 13 |"))
    lone = pd.read_csv(results / "verdicts.csv", dtype=str, keep_default_na=False)
    lone["number"] = lone["number"].replace("12", "")  # a claim that is not on the page
    assert verdicts.with_verdicts(page.read_text(), lone) != page.read_text()
    with pytest.raises(ValueError, match=r"The page has no line for claim 12; add '\| 12 \| "):
        verdicts.main(results, page, write=True)


@pytest.mark.slow
def test_verdicts_that_many_tests_explain_have_no_mark(tmp_path):
    """Holm by hand: the sorted p-values of the study's tests times 4, 3, 2 and 1."""
    make_study(tmp_path)
    found = verdicts.verdicts(tmp_path)
    p = found["p_value"].astype(float).to_numpy()
    by_hand = np.maximum.accumulate(np.sort(p) * [4, 3, 2, 1]).clip(max=1)
    assert sorted(found["p_holm"].astype(float)) == pytest.approx(by_hand, rel=1e-5)
    first = stats.ttest_1samp([2.05, 2.1, 2.05], 0).pvalue
    assert p[0] == pytest.approx(first, rel=1e-4)
    found.loc[0, "p_holm"], found.loc[1, "p_holm"] = "0.0501", ""
    lines = verdicts.with_verdicts(PAGE, found).splitlines()
    assert lines[3].endswith("| holds |")
    assert lines[4].endswith("| does not hold (1 holds, 1 not shown) |")


@pytest.mark.slow
def test_a_claim_of_two_studies_shows_both_in_the_order_of_the_page(tmp_path, capsys):
    make_study(tmp_path)
    other = make_study(tmp_path, name="also")
    protocol = (other / "protocol.toml").read_text()
    (other / "protocol.toml").write_text(protocol.replace('symbol = "M"', 'symbol = "C"'))
    networks = pd.read_csv(other / "networks.csv", keep_default_na=False)
    networks.iloc[:-1].to_csv(other / "networks.csv", index=False)
    table = verdicts.verdicts(tmp_path)
    assert "also-methods: open, 8 of 9 networks are there." in capsys.readouterr().out
    line = verdicts.with_verdicts(PAGE, table).splitlines()[3]
    assert line.endswith("| M: +2.067 ± 0.072 (n = 3 networks) | M holds‡; C open |")
    networks.to_csv(other / "networks.csv", index=False)
    line = verdicts.with_verdicts(PAGE, verdicts.verdicts(tmp_path)).splitlines()[3]
    both = "; ".join(f"{symbol}: +2.067 ± 0.072 (n = 3 networks)" for symbol in "MC")
    assert line.endswith(f"| {both} | M holds‡; C holds‡ |")


def test_a_study_that_lacks_rows_is_open(tmp_path, capsys):
    folder = make_study(tmp_path)
    table = tmp_path / "made-noise" / "trials.csv"
    rows = table.read_text().splitlines(keepends=True)
    for change in (lambda: table.write_text("".join(rows[:-1])),
                   lambda: table.write_text("".join(rows[:-2])),
                   lambda: table.write_text(rows[0])):  # fmt: skip
        change()
        assert set(verdicts.verdicts(tmp_path)["verdict"]) == {"open"}
        assert "not every network has the same rows" in capsys.readouterr().out
    table.unlink()
    found = verdicts.verdicts(tmp_path)
    assert "no table of trials of ['made-noise']" in capsys.readouterr().out
    assert set(found["verdict"]) == {"open"} and set(found["value"]) == {""}
    (folder / "networks.csv").unlink()
    assert set(verdicts.verdicts(tmp_path)["verdict"]) == {"open"}
    assert "0 of 9 networks are there" in capsys.readouterr().out


@pytest.mark.slow
def test_a_device_without_rows_is_open_until_the_grown_study_has_them(tmp_path, capsys):
    folder = make_study(tmp_path)
    grown = PROTOCOL.replace('device = "gaussian_max"', 'device = "gaussian_max_layer"')
    (folder / "protocol.toml").write_text(grown)
    assert set(verdicts.verdicts(tmp_path)["verdict"]) == {"open"}
    assert "open, no row of 'gaussian_max_layer'" in capsys.readouterr().out


BETWEEN = """
[claims.between]
claim = "SAM brings more here than there."
number = 13
tests = [
    { measure = "gain", method = "sam", over = "sgd", device = "pcm_like", minus = { study = "../also-methods" }, above = 0.0 },
    { measure = "gain", method = "sam", over = "sgd", device = "pcm_like", %s = 0.0 },
]
"""  # noqa: E501


@pytest.mark.slow
def test_only_tests_that_name_an_unfinished_study_wait_for_it(tmp_path, capsys):
    less = ACCURACIES | {"sam rho=0.2": ACCURACIES["sgd"]}  # no gain there
    folder, other = make_study(tmp_path), make_study(tmp_path, less, name="also")
    networks = (other / "networks.csv").read_text()
    (other / "networks.csv").write_text(networks[: networks.rindex("\n", 0, -1) + 1])
    page = PAGE + "| 13 | between | M | gain | | |\n"
    for limit, verdict in (("above", "holds"), ("below", "the opposite")):
        (folder / "protocol.toml").write_text(PROTOCOL + BETWEEN % limit)
        found = verdicts.verdicts(tmp_path)
        said = "claim 'between' is open, ../also-methods: 8 of 9 networks are there."
        assert said in capsys.readouterr().out
        made = list(found.loc[found["study"] == "made-methods", "verdict"])
        assert made == ["holds", "holds", "not shown", "the opposite", "open", verdict]
        known = found[(found["study"] == "made-methods") & (found["verdict"] != "open")]
        p = np.sort(known["p_value"].astype(float))  # the open test counts, as if its p was 1
        by_hand = np.maximum.accumulate(p * [6, 5, 4, 3, 2]).clip(max=1)
        assert sorted(known["p_holm"].astype(float)) == pytest.approx(by_hand, rel=1e-5)
        assert verdicts.with_verdicts(page, found).splitlines()[-1].endswith("| gain | | open |")
    shown = found.assign(symbol=found["study"].map({"made-methods": "M", "also-methods": "C"}))
    both = pd.concat([shown, shown[shown["number"] == "13"].assign(study="also", symbol="C")])
    assert verdicts.with_verdicts(page, both).splitlines()[-1].endswith("| gain | | open |")
    (other / "networks.csv").write_text(networks)
    last = verdicts.verdicts(tmp_path).iloc[-2]
    assert (last["verdict"], float(last["value"])) == ("holds", pytest.approx(6.2 / 3, 1e-5))


def test_a_study_beside_must_be_there_before_anything_is_trained(tmp_path):
    folder = make_study(tmp_path)
    (folder / "networks.csv").unlink()
    (folder / "protocol.toml").write_text(PROTOCOL + BETWEEN % "above")
    with pytest.raises(ValueError, match=r"'between', test 1: minus.study = '../also-methods': no"):
        verdicts.verdicts(tmp_path)
    itself = (BETWEEN % "above").replace("../also-methods", "../made-methods")
    (folder / "protocol.toml").write_text(PROTOCOL + itself)
    with pytest.raises(ValueError, match=r"minus.study = '../made-methods' is this study"):
        verdicts.verdicts(tmp_path)


@pytest.mark.slow
def test_a_study_of_some_methods_lacks_only_theirs(tmp_path):
    folder = make_study(tmp_path)
    noise = tmp_path / "made-noise" / "trials.csv"
    rows = pd.read_csv(noise, dtype=str, keep_default_na=False)
    rows[rows["method"] != "sgd"].to_csv(noise, index=False)
    assert set(verdicts.verdicts(tmp_path)["verdict"]) == {"open"}
    only = '[only]\n"../made-noise/study.toml" = ["sam", "gentle"]\n\n[common]'
    protocol = (folder / "protocol.toml").read_text().replace("[common]", only)
    (folder / "protocol.toml").write_text(protocol)
    assert verdicts.verdicts(tmp_path)["verdict"].iloc[-1] == "the opposite"


@pytest.mark.slow
def test_a_compressed_table_is_read(tmp_path):
    folder = make_study(tmp_path)
    before = verdicts.verdicts(tmp_path)
    with (
        (folder / "trials.csv").open("rb") as plain,
        gzip.open(folder / "trials.csv.gz", "wb") as packed,
    ):
        shutil.copyfileobj(plain, packed)
    (folder / "trials.csv").unlink()
    pd.testing.assert_frame_equal(verdicts.verdicts(tmp_path), before)


@pytest.mark.slow
def test_a_failed_network_is_counted_in_n(tmp_path):
    folder = make_study(tmp_path)
    networks = pd.read_csv(folder / "networks.csv", dtype=str, keep_default_na=False)
    networks.loc[0, ["digest", "failure"]] = "", "diverged"
    networks.to_csv(folder / "networks.csv", index=False)
    assert list(verdicts.verdicts(tmp_path)["n"]) == ["2", "2", "3", "3"]
    pd.concat([networks, networks[1:2]]).to_csv(folder / "networks.csv", index=False)
    with pytest.raises(ValueError, match=r"networks.csv: .*'sgd'.* twice"):
        verdicts.verdicts(tmp_path)


@pytest.mark.slow
def test_without_a_choice_every_strength_must_be_there(tmp_path, capsys):
    folder = make_study(tmp_path)
    protocol = PROTOCOL.replace("grid_seed = 100\ngrid_epochs = 1\n", "")
    (folder / "protocol.toml").write_text(protocol)
    with pytest.raises(ValueError, match=r"'better', test 1: method = 'sam' is not in the prot"):
        verdicts.verdicts(tmp_path)
    protocol = protocol.replace('method = "sam"', 'method = "sam rho=0.2"')
    protocol = protocol.replace('over = "sam"', 'over = "sam rho=0.2"')
    (folder / "protocol.toml").write_text(protocol)
    assert set(verdicts.verdicts(tmp_path)["verdict"]) == {"open"}
    assert "9 of 12 networks are there" in capsys.readouterr().out
    (folder / "protocol.toml").write_text(
        PROTOCOL.replace("grid_seed = 100\ngrid_epochs = 1\n", "").replace("rho=0.1,0.2", "rho=0.2")
    )
    found = verdicts.verdicts(tmp_path)
    assert list(found["verdict"]) == ["holds", "holds", "not shown", "the opposite"]


def test_a_protocol_that_cannot_be_understood_names_its_claim(tmp_path):
    folder = make_study(tmp_path)
    for old, new, message in (
        ('over = "sgd", device = "pcm_like"', 'over = "sdg", device = "pcm_like"',
         r"protocol.toml: claim 'better', test 1: over = 'sdg' is not in the protocol"),
        ('"gentle", over = "sam", device = "gaussian_max", above', '"gentle", over = "sam", device'
         ' = "gaussian_max", limit', r"claim 'worse', test 1: Unknown keys \['limit'\]"),
        ('tests = [\n    { measure = "gain", method = "gentle"', 'checks = [\n    { method = ""',
         "protocol.toml: claim 'worse': unknown key 'checks'"),
        (PROTOCOL[PROTOCOL.rindex("tests") :], "",
         "claim 'worse' has no 'tests'; add them"),
    ):  # fmt: skip
        assert old in PROTOCOL
        (folder / "protocol.toml").write_text(PROTOCOL.replace(old, new))
        with pytest.raises(ValueError, match=message):
            verdicts.verdicts(tmp_path)


def test_a_study_of_tables_alone_needs_a_protocol_and_a_table(tmp_path):
    folder = tmp_path / "ring"
    folder.mkdir()
    (folder / "protocol.toml").write_text(
        'seeds = [0, 1]\n[claims.drift]\nnumber = 1\ntests = [{ measure = "table", table = '
        '"drift.csv", column = "accuracy", scale = 100, unit = "points", method = "sam", '
        'over = "sgd", where = { kelvin = -1 }, above = 0.0 }]\n'
    )
    assert list(verdicts.verdicts(tmp_path)["verdict"]) == ["open"]
    lines = ["training_seed,method,kelvin,accuracy", "0,sgd,-1,0.6", "0,sam,-1,0.9",
             "1,sgd,-1,0.7", "1,sam,0,0.95", "1,sam,-1,0.99"]  # fmt: skip
    (folder / "drift.csv").write_text("\n".join(lines[:-1]) + "\n")
    assert list(verdicts.verdicts(tmp_path)["verdict"]) == ["open"]
    (folder / "drift.csv").write_text("\n".join(lines) + "\n")
    (row,) = verdicts.verdicts(tmp_path).to_dict("records")
    assert (row["verdict"], row["value"], row["unit"], row["n"]) == ("holds", "29.5", "points", "2")
    line = verdicts.with_verdicts(PAGE, pd.DataFrame([row])).splitlines()[3]
    assert line.endswith("| +29.5 ± 6.4 (n = 2 networks) | holds‡ |")


def test_nothing_is_written_where_something_is_wrong(tmp_path):
    make_study(tmp_path)
    for page, message in (
        (PAGE.replace("| 12 |", "| 13 |"), "no line for claim 12"),
        (PAGE + "| 12 | again | M | gain | | open |\n", "two lines for claim 12"),
        (PAGE.replace("| M | gain |", "| M |"), "line for claim 12 has 5 columns, not 6"),
    ):
        (tmp_path / "page.md").write_text(page)
        with pytest.raises(ValueError, match=message):
            verdicts.main(tmp_path, tmp_path / "page.md", write=True)
        assert (tmp_path / "page.md").read_text() == page
    with pytest.raises(FileNotFoundError, match="give one by --page, or claims without 'number'"):
        verdicts.main(tmp_path, tmp_path / "none.md", write=True)
    with pytest.raises(FileNotFoundError, match="No folder in .* has a protocol.toml"):
        verdicts.main(tmp_path / "made-noise", tmp_path / "none.md", write=True)
    assert not list(tmp_path.rglob("verdicts.csv"))


def test_claims_without_number_need_no_page(tmp_path):
    folder = make_study(tmp_path)
    protocol = "".join(line for line in PROTOCOL.splitlines(keepends=True) if "number" not in line)
    (folder / "protocol.toml").write_text(protocol)
    verdicts.main(tmp_path, tmp_path / "none.md", write=True)
    assert len(pd.read_csv(tmp_path / "verdicts.csv")) == 4


def test_fine_tuned_methods_without_a_choice_have_their_own_strength(tmp_path):
    folder = make_study(tmp_path)
    protocol = PROTOCOL.replace("grid_seed = 100\ngrid_epochs = 1\n", "")
    protocol = protocol.replace("rho=0.1,0.2", "rho=0.2").replace("[common]", START)
    (folder / "protocol.toml").write_text(protocol)
    for table in (folder / "networks.csv", folder / "trials.csv",
                  tmp_path / "made-noise" / "trials.csv"):  # fmt: skip
        table.write_text(table.read_text().replace("rho=0.2", "rho=0.2 fine-tuned"))
    assert verdicts.verdicts(tmp_path)["verdict"].iloc[0] == "holds"


def test_a_damaged_table_is_named(tmp_path):
    folder = make_study(tmp_path)
    table = folder / "networks.csv"
    text = table.read_text()
    for wrong, message in (
        (text[:-90], r"networks\.csv, line 10, is cut off; delete it"),
        (
            text.replace("f" * 48, "f" * 40, 1),
            r"networks\.csv, line 2: training_seed = '0', digest",
        ),
        ("", r"networks\.csv is damaged"),
    ):
        table.write_text(wrong)
        with pytest.raises(ValueError, match=message):
            verdicts.verdicts(tmp_path)


@pytest.fixture(scope="module")
def committed():
    file = ROOT / "results" / verdicts.VERDICTS_FILE
    return pd.read_csv(file, dtype=str, keep_default_na=False)


@pytest.mark.slow
def test_committed_verdicts_are_those_of_the_committed_rows(committed):
    pd.testing.assert_frame_equal(verdicts.verdicts(ROOT / "results"), committed)


def test_the_page_of_studies_says_the_committed_verdicts(committed):
    page = (ROOT / "docs" / "STUDIES.md").read_text(encoding="utf-8")
    assert verdicts.with_verdicts(page, committed) == page


@pytest.mark.parametrize(
    "study",
    ["mnist-methods", "cifar10-methods", "spoken-methods", "spoken-lstm", "mnist-finetuned"],
)
def test_committed_tests_say_what_the_endpoint_says(study):
    plan = tomllib.loads((ROOT / "results" / study / "protocol.toml").read_text())
    for claim in plan["claims"].values():
        for test in claim["tests"]:
            keys = ("method", "over", "device", "column", "time_s", "reference", "margin")
            words = [test[key] for key in keys if key in test]
            words += [test.get("minus", {}).get(key, "") for key in ("device", "time_s")]
            words += test.get("compensation", "").split(", batch norm ")
            words += [test.get("minus", {}).get("compensation", "")]
            words += [f"sigma {s}" for s in [test.get("condition", {}).get("sigma")] if s]
            kind = next(key for key in verdicts.LIMITS if key in test)
            said = {"at_least": "at least", "differs_from": "excludes"}.get(kind, kind)
            for word in (*words, f"{said} {test[kind]:g}"):
                assert f"{word}".removesuffix(".0") in claim["endpoint"].lower()
