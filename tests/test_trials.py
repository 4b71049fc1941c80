"""What trials tell of a choice: the best of them, and what fewer would have been expected to give."""

import itertools

import pandas as pd
import pytest

from attnbench.check import choice
from attnbench.reports.trials import expected_best, trials_sheets
from tests.asked import plan
from tests.test_choose import ASKED


def test_the_expected_best_of_k_is_the_mean_over_all_choices_of_k():
    losses = [0.3, 0.1, 0.9, 0.1, 0.5]
    for k, found in enumerate(expected_best(losses), 1):
        picks = [min(pick) for pick in itertools.combinations(losses, k)]
        assert found == pytest.approx(sum(picks) / len(picks))
    assert expected_best([0.2, float("inf")]) == [float("inf"), 0.2]


def test_a_value_that_rows_leave_out_is_told_and_chosen_like_the_others(tmp_path):
    asked = ASKED.replace("task.rate, values: [1e-3, 3e-3, 1e-2]", "task.clip, values: [0.5, 1.0, 2.0]")
    choose = choice(plan(tmp_path, asked))
    assert choose is not None
    row = {"kind": "trial", "task": "darcy", "variant": "full", "status": "ok"}
    tried = [(0.5, 0.3), (None, 0.1), (2.0, 0.2)]  # a clip of 1 is neutral
    rows = [row | {"task.clip": clip, "result.valid_rel_l2": score} for clip, score in tried for _ in (100, 101)]
    (sheet,) = trials_sheets(pd.DataFrame(rows), choose)
    assert sheet.rows == [["full", "6 / 6", "1.0", "0.3000", "0.1000", "0.2000", "0.2000", "0.1333", "0.1000"]]
