"""What one would otherwise do with the same rows: pandas and seaborn, without intervals that hold or tests.

    python benchmarks/_plain_report.py ROWS.csv FOLDER

Reads the file, writes means and deviations by task and variant as Markdown and LaTeX, and for each task a strip of
every variant's seeds, and its means against speed and against memory, each as PNG, PDF and SVG.
"""

import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

MEASURES = ("result.rel_l2", "result.accuracy", "result.miou", "result.bits_per_byte")
COSTS = ("cost.train_samples_per_s", "cost.memory_train_mib")


def main() -> None:
    rows: Any = pd.read_csv(sys.argv[1], low_memory=False)  # types of pandas do not know what a column holds
    folder = Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    trained = rows[rows["kind"] == "train"]
    for task, own in trained.groupby("task"):
        measure = next(name for name in MEASURES if name in own and own[name].notna().any())
        found = own.groupby("variant")[[measure, *COSTS]].agg(["mean", "std", "count"])
        (folder / f"{task}.md").write_text(found.to_markdown())
        (folder / f"{task}.tex").write_text(found.to_latex())
        height = 0.17 * own["variant"].nunique()
        look = {"kind": "strip", "height": height, "aspect": 7 / height, "legend_out": False}
        strip = sns.catplot(own, x=measure, y="variant", hue="mechanism", **look)
        save(strip.figure, folder / f"{task}-variants")
        means = own.groupby(["variant", "mechanism"], as_index=False)[[measure, *COSTS]].mean()
        for cost in COSTS:
            save(sns.relplot(means, x=cost, y=measure, hue="mechanism").figure, folder / f"{task}-{cost}")


def save(figure: Figure, path: Path) -> None:
    for ending in ("png", "pdf", "svg"):
        figure.savefig(f"{path}.{ending}", dpi=200)
    plt.close(figure)


if __name__ == "__main__":
    main()
