"""The sections of a sweep file that are no catalogue entries, each with its types."""

from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from mechanisms import Knobs


class Slurm(Knobs):
    """Resources of one job; partition and account are the user's, not the file's."""

    hours: PositiveFloat = 1.0
    """time limit of a job in hours"""
    gpus: NonNegativeInt = 0
    """GPUs of a job"""
    cpus: PositiveInt = 2
    """CPU cores of a job"""
    memory_gib: PositiveFloat = 8.0
    """memory of a job in GiB"""
    parallel: PositiveInt = 8
    """jobs of the array that run at the same time"""


class Figure(Knobs):
    """One figure; words are columns of the rows."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    """name of its file: letters, digits, - and _"""
    kind: Literal["variants", "scatter", "lines"]
    """a strip for each variant, a point for each variant, or lines over a knob"""
    y: str
    """column on the vertical axis (of variants: the one that is drawn)"""
    x: str | None = None
    """column on the horizontal axis"""
    color: str | None = None
    """column that chooses the colour"""
    style: str | None = None
    """column that chooses dashes and markers"""
    panel: str | None = None
    """column that chooses the panel"""
    mechanism: str | None = None
    """draw this mechanism's variants only"""
    title: str | None = None
    """printed above the figure"""


class Frame(Knobs):
    """What a sweep file says beside its lists of tasks, models and mechanisms."""

    question: str
    """what the sweep is to answer, in one sentence"""
    runs: PositiveInt
    """number of distinct training cells that the file describes"""
    seeds: list[NonNegativeInt]
    """seeds of the runs; runs of one seed are paired"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """device class of all cells; auto takes cuda where there is one, or where slurm asks for GPUs"""
    slurm: Slurm | None = None
    """resources on a cluster"""
    figures: list[Figure] = Field(default_factory=list)
    """what report draws"""

    @field_validator("seeds", mode="before")
    @classmethod
    def one_seed_is_a_list(cls, seeds: Any) -> Any:
        return [seeds] if isinstance(seeds, int) else seeds

    @field_validator("seeds")
    @classmethod
    def seeds_are_different(cls, seeds: list[int]) -> list[int]:
        if not seeds or len(set(seeds)) < len(seeds):
            raise ValueError("a number or a list of different numbers, at least one")
        return seeds
