"""Tables, figures and the page of scores other than accuracy."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from synthetic_trials import make_trials

from analog_samson.report import (
    Content,
    accuracy_vs_time,
    gain_table,
    gain_vs_time,
    heat_map,
    layer_sensitivity,
    lifetime_table,
    lifetimes,
    study_figures,
    study_tables,
    table,
    waterfall,
    write_report,
)
from analog_samson.report.contents import warnings_of
from analog_samson.results import (
    SCORE_COLUMNS,
    append_rows,
    lifetime,
    paired_gain,
    shown_as,
    summarise,
)
from analog_samson.results.scores import SCORES
from analog_samson.times import DAY, YEAR

TIMES = (1.0, DAY, YEAR)


def losses(means, *, per_decade=0.01, name="cross_entropy", digital=0.5, n=500, seed=0, **options):
    """Rows whose samples all have the chip's value: mean + slope log10 t + spread."""
    trials = make_trials(means, slope=-per_decade, times_s=TIMES, seed=seed, **options)
    value = trials["n_correct"] / trials["n_images_per_chip"]
    sums = {
        "score": name,
        "higher_is_better": False,
        "n_images_per_chip": n,
        "n_test": n,
        "sum": n * value,
        "sum_squares": n * value**2,
        "sum_digital": n * digital,
        "sum_squares_digital": n * digital**2,
        "sum_products": n * value * digital,
        "sum_digital_test": n * digital,
    }
    return trials.assign(**sums)[list(SCORE_COLUMNS)]


@pytest.fixture(scope="module")
def rows():
    return losses({"sgd": 0.55, "samson rho=0.5": 0.52}, std_networks=0.005)


def axes():
    return Figure().subplots()


def cells(found, method):
    block = found.blocks[0].cells.set_index("method")
    return block.loc[method]


def test_a_table_of_perplexity_has_the_exponentials_of_the_means_and_bounds(rows):
    summary = summarise(rows)
    found = table(summary)
    assert found.title == "Perplexity (lower is better) against time since programming"
    assert found.label == "tab:cross_entropy"
    assert "perplexity = exp(mean cross entropy)" in found.caption
    assert "Mean with its 95 % interval" in found.caption
    row = summary[(summary["method"] == "sgd") & (summary["t_inference_s"] == DAY)].iloc[0]
    middle, low, high = (np.exp(row[name]) for name in ("cross_entropy", "low", "high"))
    assert cells(found, "SGD")["1 d"] == f"{middle:.3f} ({low:.3f} to {high:.3f})"
    assert cells(found, "SGD")["digital"] == f"{np.exp(0.5):.3f}"
    data = pd.read_csv(pd.io.common.StringIO(found.csv()))
    assert np.allclose(data["cross_entropy"], summary["cross_entropy"], atol=1e-9)


def test_the_best_of_a_table_is_the_lowest(rows):
    found = study_tables(rows, n_classes={"digits": 10})["cross_entropy"]
    block = found.blocks[0]
    bold = block.bold.assign(method=block.cells["method"]).set_index("method")
    assert bold.loc["SAMSON ρ = 0.5", ["1 s", "1 d"]].all()
    assert not bold.loc["SGD"].any()


def test_gains_are_shares_of_perplexity_and_positive_where_it_is_lower(rows):
    gains = paired_gain(rows)
    found = gain_table(gains)
    assert found.title == "Gain over SGD [% of perplexity]"
    assert "Positive: better, a lower perplexity." in found.caption
    gain = gains.set_index("t_inference_s")["gain"][DAY]
    shown = 100 * (1 - np.exp(-gain))
    assert shown > 0
    assert cells(found, "SAMSON ρ = 0.5")["1 d"].startswith(f"+{shown:.2f} (")
    ax = axes()
    gain_vs_time(ax, gains)
    assert ax.get_ylabel() == "gain over SGD [% of perplexity]"


def test_lifetimes_say_what_is_exceeded(rows):
    found = lifetime_table([lifetime(rows, loss) for loss in (0.05, 0.1)])
    assert found.title == "Lifetime: time until perplexity is a given share above digital"
    assert list(found.blocks[0].cells)[2:] == ["5 % above", "10 % above"]
    assert "Counted from the same network without analog noise, relative to it" in found.caption
    ax = axes()
    lifetimes(ax, lifetime(rows, 0.1))
    assert ax.get_xlabel() == "time until perplexity is 10 % above digital"


def test_axes_carry_unit_and_direction_and_are_logarithmic_over_a_wide_range(rows):
    ax = axes()
    accuracy_vs_time(ax, summarise(rows))
    assert ax.get_ylabel() == "perplexity (lower is better)"
    assert ax.get_yscale() == "linear"
    drawn = max(line.get_ydata().max() for line in ax.lines if len(line.get_ydata()) == len(TIMES))
    assert drawn == pytest.approx(np.exp(summarise(rows)["cross_entropy"].max()))
    ax = axes()
    accuracy_vs_time(ax, summarise(shown_as(rows, "bits_per_token")))
    assert ax.get_ylabel() == "cross entropy [bits per token]\n(lower is better)"
    ax = axes()
    wide = losses({"sgd": 0.1, "samson rho=0.5": 0.12}, per_decade=0.1, name="mse", digital=0.05)
    accuracy_vs_time(ax, summarise(wide))
    assert ax.get_yscale() == "log"
    assert ax.get_ylabel() == "mean squared error (lower is better)"


def test_the_breakdown_is_drawn_in_the_shown_unit():
    stages = ["digital", "programmed", "compensated"]
    values = pd.DataFrame(
        {
            "score": "cross_entropy",
            "higher_is_better": False,
            "stage": stages * 2,
            "cross_entropy": np.log([4.0, 4.4, 5.0, 4.0, 4.4, 5.0]),
        }
    )
    ax = axes()
    waterfall(ax, values)
    assert ax.get_xlabel() == "change of perplexity (lower is better)"
    said = [text.get_text() for text in ax.texts]
    assert said == ["4.00", "+0.40 → 4.40", "+0.60 → 5.00"]
    assert [patch.get_facecolor()[:3] for patch in ax.patches] == [
        pytest.approx((0xD5 / 255, 0x5E / 255, 0))
    ] * 2
    layers = values.rename(columns={"stage": "layer"}).assign(clean_cross_entropy=np.log(4.0))
    ax = axes()
    layer_sensitivity(ax, layers)
    assert ax.get_xlabel() == "rise of perplexity\nwith this layer alone analog [%]"
    assert [patch.get_width() for patch in ax.patches] == pytest.approx([0, 10, 25])


def test_cells_of_a_map_have_the_digits_of_the_score():
    parts = []
    for x, y in ((1, 1), (1, 2), (2, 1), (2, 2)):
        own = losses({"sgd": 0.0005 * x * y}, per_decade=0, name="mse", digital=1e-4,
                     std_networks=0, std_chips=0)  # fmt: skip
        condition = json.dumps({"x": x, "y": y})
        parts.append(own.assign(condition=condition, chip_id=own["chip_id"] + condition))
    summary = summarise(pd.concat(parts))
    ax = axes()
    heat_map(ax, summary[summary["t_inference_s"] == 1], "x", "y")
    assert [text.get_text() for text in ax.texts] == ["0.00050", "0.00100", "0.00100", "0.00200"]


def test_a_score_without_guessing_or_with_a_digital_value_of_zero_has_a_report():
    rows = losses({"sgd": 0.1, "samson rho=0.5": 0.12}, name="mse", digital=0.0, n_networks=2)
    found = study_tables(rows)
    assert set(found) == {"mse", "gain", "lost", "saved"}
    assert not {"lifetime", "iso_mse"} & set(study_figures(rows))
    said = " ".join(warnings_of(Content(rows)))
    assert "The digital mean squared error of samson-rho=0.5-0, " in said
    assert "normalised" not in said
    some = rows.assign(
        **{name: rows[name].where(rows["method"] == "sgd", 50.0)
           for name in ("sum_digital", "sum_squares_digital", "sum_products", "sum_digital_test")}
    )  # fmt: skip
    assert "SGD" not in study_tables(some)["lifetime"].markdown()


@pytest.mark.slow
def test_a_page_shows_two_studies_of_different_scores(tmp_path, rows):
    kinds = {
        "first": make_trials(times_s=TIMES, n_chips=3, n_networks=3).assign(study="first"),
        "second": rows[rows["chip"] < 3].assign(study="second"),
    }
    for name, own in kinds.items():
        (tmp_path / name).mkdir()
        append_rows(own, tmp_path / name / "trials.csv")
    folders = [tmp_path / name for name in kinds]
    with pytest.raises(ValueError, match=r"several with out=\.\.\.; got 2 folders"):
        write_report(folders)
    written = write_report(folders, out=tmp_path / "both")
    paths = {str(path.relative_to(tmp_path / "both")) for path in written}
    assert {"accuracy/gain.md", "cross_entropy/gain.md", "cross_entropy/cross_entropy.pdf"} <= paths
    assert {"accuracy/accuracy.tex", "report.html"} <= paths
    page = (tmp_path / "both" / "report.html").read_text()
    assert re.findall(r"<h1>(.*?)</h1>", page) == ["first", "second"]
    assert "<title>first, second</title>" in page
    anchors = re.findall(r"<h2 id='(.*?)'", page)
    assert len(anchors) == len(set(anchors))
    assert {"accuracy-accuracy", "cross_entropy-cross_entropy"} <= set(anchors)
    titles = re.findall(r"<h2 id=.*?>(.*?)</h2>", page)
    assert {"Accuracy over time", "Perplexity over time"} <= set(titles)
    assert "Time until accuracy is lost, with its interval" in page
    assert "Time until perplexity is a given share above digital, with its interval" in page
    assert page.count("{") == page.count("}")
    assert not re.search(r"\{(score|Score|is lost)\}", page)
    bits = write_report(folders, out=tmp_path / "bits", shown_as="bits_per_token")
    text = (tmp_path / "bits" / "cross_entropy" / "cross_entropy.md").read_text()
    assert text.startswith("### Cross entropy [bits per token] (lower is better) against")
    assert tmp_path / "bits" / "accuracy" / "accuracy.md" in bits
    merged = write_report([folders[1], folders[1]], out=tmp_path / "twice")
    assert tmp_path / "twice" / "cross_entropy.md" in merged, "one score: no folders"


def test_reports_of_a_score_do_not_depend_on_the_name_of_accuracy(rows):
    """Nothing of a report of perplexity speaks of accuracy."""
    for found in study_tables(rows, n_classes={"digits": 10}).values():
        assert "accura" not in (found.markdown() + found.latex()).lower()
    for name, figure in study_figures(rows).items():
        assert "accuracy" not in name
        texts = [text.get_text() for text in figure.findobj(match=lambda a: hasattr(a, "get_text"))]
        assert not any("accura" in text.lower() for text in texts), name


@pytest.mark.parametrize(("name", "given", "stored"), [
    ("cross_entropy", 5.9, np.log(5.9)), ("bits", 2.0, 2.0 * np.log(2)), ("mse", 0.3, 0.3),
    ("accuracy", 0.9, 0.9), ("top5", 0.97, 0.97)])  # fmt: skip
def test_a_target_is_given_as_the_score_is_shown(name, given, stored):
    """A perplexity of 5.9 is a cross entropy of log 5.9; 2 bits are 2 log 2 nat."""
    score = SCORES[name]
    assert score.in_table(given) == pytest.approx(stored)
    if score.unit != "%":
        assert score.shown(score.in_table(given)) == pytest.approx(given)


def test_a_perplexity_of_zero_is_no_target():
    with pytest.raises(ValueError, match="greater than 0; got 0"):
        SCORES["cross_entropy"].in_table(0.0)
