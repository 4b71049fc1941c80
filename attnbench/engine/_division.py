"""How the cells of a sweep are divided into shards, each the work of one job."""

from collections.abc import Sequence

from attnbench.manifest import Cell


def shards(cells: Sequence[Cell], *, hours: float, parallel: int, each: bool = False) -> list[list[str]]:
    """Divides cells into shards of at most half of `hours` by their estimates, and into at least `parallel` of them.

    The longest first, each to the shard that has least; a cell longer than half of `hours` stands alone.
    each: all stand alone, for each has several nodes.
    """
    longest_first = sorted(cells, key=lambda cell: -cell.estimate_s)
    if each:
        return [[cell.id] for cell in longest_first]
    half_s = 1800 * hours
    count = min(len(cells), max(parallel, int(sum(cell.estimate_s for cell in cells) / half_s)))
    while True:
        loads: list[float] = [0.0] * count
        divided: list[list[str]] = [[] for _ in range(count)]
        for cell in longest_first:
            least = loads.index(min(loads))
            loads[least] += cell.estimate_s
            divided[least].append(cell.id)
        too_long = any(load > half_s and len(ids) > 1 for load, ids in zip(loads, divided, strict=True))
        if not too_long or count == len(cells):
            return divided
        count = min(len(cells), count + max(1, count // 10))
