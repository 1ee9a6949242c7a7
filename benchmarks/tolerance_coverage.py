r"""How often does the interval of a tolerance contain the true one?

Chips of networks whose tolerance is known in closed form are simulated
(`tests/simulated_losses.py`) and searched with the rule of `analog_samson.results.tolerance`:

- a linear classifier under Gaussian weight noise, mean loss over chips, of 1 and 5 points;
- samples in one direction, yield 0.9 and 0.8, one point;
- lognormal losses of growing skewness: Student's test is exact for normal losses alone.

    python benchmarks/tolerance_coverage.py --runs 200

Two minutes on one core.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from simulated_losses import LinearClassifier, Lognormal, OneDirection, found_by, rule_for


def main(runs: int = 200, confidence: float = 0.95) -> None:
    """Print coverage, width and number of chips of every case.

    Args:
        runs: Searches of each case, with other chips.
        confidence: Confidence of the intervals.
    """
    linear = LinearClassifier()
    cases = [
        *((f"linear classifier, mean, {100 * lose:g} %", linear, lose, None, n)
          for lose in (0.01, 0.05) for n in (20, 40, 100)),
        *((f"one direction, yield {share:g}", OneDirection(), 0.01, share, n)
          for share, n in ((0.9, 100), (0.9, 200), (0.8, 60))),
        *((f"lognormal, variation {cv:g}, mean", Lognormal(cv), 0.01, None, 100)
          for cv in (0.25, 0.5, 1.0, 2.0)),
        *((f"lognormal, variation {cv:g}, yield 0.9", Lognormal(cv), 0.01, 0.9, 100)
          for cv in (0.5, 2.0)),
    ]  # fmt: skip
    lines = []
    for name, network, lose, share, n in cases:
        rule, true = rule_for(network, lose, share, n, confidence), network.tolerance(lose, share)
        found = [found_by(network, rule, seed)[0] for seed in range(runs)]
        lines.append(
            {
                "case": name,
                "chips at most": n,
                "true": round(true, 3),
                "inside": f"{sum(one.low < true < one.high for one in found)} of {runs}",
                "high / low": round(float(np.median([o.high / o.low for o in found if o.low])), 2),
                "estimate / true": round(float(np.mean([o.factor for o in found])) / true, 3),
                "spread": round(float(np.std([np.log(one.factor) for one in found])), 3),
                "chips": round(float(np.mean([one.n_chips for one in found]))),
            }
        )
    print(pd.DataFrame(lines).to_markdown(index=False))


if __name__ == "__main__":
    tyro.cli(main)
