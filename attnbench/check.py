"""Builds every distinct cell of a sweep on the meta device, counts its weights and work, and estimates its time.

Nothing runs and nothing is allocated: a combination that cannot be built is found here, before any cell starts.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from attnbench._yaml import SweepError
from attnbench.engine._still import still
from attnbench.flops import Work, count
from attnbench.labels import variants, word
from attnbench.manifest import Cell, Manifest
from attnbench.models import counted, maker
from attnbench.probes._expand import estimate_s as bare_s
from attnbench.probes._expand import worked as bare_work
from attnbench.sweep import Plan, Planned

FLOPS_PER_S = {"cpu": 12e9, "cuda": 5e12}  # of one training cell on one core, or one GPU, at small sizes: a rough guess
START_S = {"cpu": 4.0, "cuda": 12.0}  # a fresh process, its imports, its device
STEP_S = 0.005  # launching the operations of a step, however small they are
COUNTED: Mapping[str, Work] = {}
ENDED: Mapping[str, float] = {}
COST_S = 9.0  # warming up and measuring


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A plan whose every cell can be built: the work of each by its cost cell's id, and the manifest for launchers.

    ended: expected seconds of cells that have their row; variants of which all have theirs were not built.
    """

    plan: Plan
    works: dict[str, Work]
    manifest: Manifest
    ended: Mapping[str, float] = field(default_factory=dict)

    @property
    def hours(self) -> float:
        """Estimated hours of all cells, one after the other."""
        return (sum(cell.estimate_s for cell in self.manifest.cells) + self.manifest.waiting_s) / 3600


@still()
def check(plan: Plan, known: Mapping[str, Work] = COUNTED, ended: Mapping[str, float] = ENDED) -> Checked:
    """Raises SweepError, with the line of the entry, for a cell that cannot be built.

    known: works by the ids of cost cells that were counted before.
    ended: expected seconds of the cells that have their row. Where all of a variant have, nothing of it is built.
    """
    needed = {cell.cost_id or cell.id for cell in (*plan.cells, *plan.waiting) if cell.id not in ended}
    costs = [cell for cell in plan.cells if cell.spec["kind"] != "train" and cell.id in needed]
    works = {cell.id: known.get(cell.id) or worked(plan, cell) for cell in costs}
    labels = variants(plan)
    seconds = {cell.id: expected_s(cell, works, ended) for cell in plan.cells}
    cells = tuple(listed(cell, seconds[cell.id], labels) for cell in plan.cells)
    frame = plan.frame
    manifest = Manifest(
        sweep=plan.name,
        question=frame.question,
        device=plan.device,
        cells=cells,
        slurm=frame.slurm.model_dump() if frame.slurm else None,
        figures=tuple(figure.model_dump(exclude_none=True) for figure in frame.figures),
        better=better(plan),
        choose=choice(plan),
        equal=frame.equal.what if frame.equal else "",
        solved=frame.solved,
        waiting=tuple(listed(cell, 0.0, labels).label for cell in plan.waiting),
        waiting_s=round(sum(estimate_s(cell, works) for cell in plan.waiting), 1),
    )
    return Checked(plan=plan, works=works, manifest=manifest, ended=ended)


def choice(plan: Plan) -> dict[str, Any] | None:
    """How a knob is chosen: the knob, its values, the seeds of the trials, and of each task the score and its side, and
    the value that rows leave out, if there is one."""
    if (choose := plan.frame.choose) is None:
        return None
    entries = {cell.task.name: cell.task.entry for cell in plan.cells if cell.task}
    scores = {task: (choose.score(task), entry.better[choose.score(task)]) for task, entry in entries.items()}
    neutral = {task: entry.config.neutral.get(choose.name) for task, entry in entries.items()}
    return {"knob": choose.knob, "values": choose.values, "seeds": choose.seeds, "scores": scores, "neutral": neutral}


def better(plan: Plan) -> dict[str, str]:
    """The columns that rank models, of all tasks of the plan."""
    tasks = {cell.task.name: cell.task.entry for cell in plan.cells if cell.task}
    return {f"result.{name}": side for task in tasks.values() for name, side in task.better.items()}


def worked(plan: Plan, cell: Planned) -> Work:
    inside = counted((cell.mechanism.name, cell.mechanism.values)) if cell.mechanism else None
    try:
        if cell.site:
            return bare_work(cell.spec)
        return count(maker(cell.model.name, cell.model.values, inside, 0), cell.task.config.port)
    except ValueError as error:
        line = (cell.mechanism or cell.model).line
        raise SweepError(plan.file, line, str(error)) from None


def expected_s(cell: Planned, works: Mapping[str, Work], ended: Mapping[str, float]) -> float:
    """From the work of what was built, else from what is known of a cell that has ended."""
    return estimate_s(cell, works) if (cell.cost_id or cell.id) in works else ended[cell.id]


def listed(cell: Planned, seconds: float, labels: Mapping[str, str]) -> Cell:
    seed, variant = cell.spec.get("seed"), labels[cell.id]
    last = cell.about if cell.site else "cost" if seed is None else f"seed {seed}"
    return Cell(
        id=cell.id,
        kind=cell.spec["kind"],
        label=", ".join(filter(None, (variant, tried(cell), last))),
        variant=variant,
        mechanism=cell.mechanism.name if cell.mechanism else None,
        model=cell.model.name if cell.model else None,
        seed=seed,
        estimate_s=round(seconds, 1),
        cost_id=cell.cost_id,
        trial=cell.trial,
        settled=" ".join(cell.settled),
        ratio=cell.ratio,
    )


def tried(cell: Planned) -> str:
    """What a trial tries, as its label says it."""
    names = [column.partition(".")[2] for column in cell.settled if column.startswith("task.")]
    return ", ".join(f"trial of {word(name, cell.task.values[name])}" for name in names) if cell.trial else ""


def estimate_s(cell: Planned, works: Mapping[str, Work]) -> float:
    """Seconds of a cell from its work: a rough guess, replaced by measured times as soon as like cells have ended."""
    device = cell.spec["device"]
    if cell.site:
        return START_S[device] + bare_s(cell, works[cell.id])
    if cell.cost_id is None:
        return START_S[device] + COST_S
    work, config = works[cell.cost_id], cell.task.config
    flops = 3 * (work.matmul_flops + work.fft_flops) * config.examples  # backward is about two forward passes
    flops_per_s = FLOPS_PER_S[device] * max(1, cell.spec["gpus"], cell.spec.get("nodes", 1))
    return START_S[device] + flops / flops_per_s + STEP_S * config.examples / config.examples_per_step


def table(checked: Checked) -> list[tuple[str, str, int, int, float]]:
    """A line for each variant: label, cells, weights, forward FLOPs of one example, seconds of all its cells.

    Of a mechanism at several sites the work is that of the largest.
    """
    by_variant: dict[str, list[Cell]] = {}
    for cell in checked.manifest.cells:
        by_variant.setdefault(cell.variant if cell.model else f"{cell.variant}, {cell.kind}", []).append(cell)
    return [line(variant, cells, checked) for variant, cells in by_variant.items()]


def line(variant: str, cells: Iterable[Cell], checked: Checked) -> tuple[str, str, int, int, float]:
    cells = list(cells)
    works = [checked.works[id] for cell in cells if (id := cell.cost_id or cell.id) in checked.works]
    work = max(works, key=lambda work: work.matmul_flops)
    trainings = sum(cell.kind == "train" for cell in cells)
    told = f"{trainings} + {len(cells) - trainings}" if cells[0].model else str(len(cells))
    return variant, told, work.params, work.matmul_flops + work.fft_flops, sum(cell.estimate_s for cell in cells)
