"""Performance profiles: for every score the share of runs over all tasks that are above it, a line for each variant."""

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from attnbench.reports.canvas import DASHES, QUIET, WIDTH_IN, colors, finish, legend, note
from attnbench.reports.overall import GRID, Overall

NAME = "profiles"
SAYS = (
    "Runs of all tasks, scored so that 0 is chance or the control and 1 is full attention. Bands: 95 % from a "
    "bootstrap over seeds within tasks, at each score by itself."
)


def profiles(whole: Overall) -> Figure:
    """A curve and a band for each variant; a line that is above another everywhere belongs to the better one."""
    order = sorted(whole.profile, key=lambda name: -whole.mean[name].mean)
    groups = {name: next(task.lines[name].group for task in whole.tasks) for name in order}
    hue, seen, entries = colors(sorted(set(groups.values()))), dict.fromkeys(groups.values(), 0), []
    figure = Figure(figsize=(WIDTH_IN, 3.2), layout="constrained")
    axes = figure.subplots()
    rounds = {group: i // 10 for i, group in enumerate(hue)}  # colours begin again after ten
    for name in order:
        dash = rounds[groups[name]] + seen[groups[name]]
        look = {"color": hue[groups[name]], "linestyle": DASHES[dash % len(DASHES)]}
        seen[groups[name]] += 1
        middle, low, high = whole.profile[name]
        axes.step(GRID, middle, where="post", gid="profile", zorder=3, **look)
        axes.fill_between(GRID, low, high, step="post", color=look["color"], alpha=0.08, linewidth=0, zorder=1)
        entries.append(Line2D([], [], label=name, **look))
    for level in (0, 1):
        axes.axvline(level, color=QUIET, linewidth=0.8, linestyle=(0, (1, 1.2)), zorder=1, gid="level")
    axes.set(xlabel="score, 0 chance or control, 1 full attention", ylabel="share of runs above", ylim=(-0.02, 1.02))
    axes.set_xlim(GRID[0], GRID[-1])
    finish(axes, grid="both")
    legend(figure, ("variant", entries))
    note(figure, SAYS)
    return figure
