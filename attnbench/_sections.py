"""The sections of a sweep file that are no catalogue entries, each with its types."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from mechanisms import Knobs


def as_list(seeds: Any) -> Any:
    return [seeds] if isinstance(seeds, int) else seeds


def different(seeds: list[int]) -> list[int]:
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError("a number or a list of different numbers, at least one")
    return seeds


Seeds = Annotated[list[NonNegativeInt], BeforeValidator(as_list), AfterValidator(different)]


class Slurm(Knobs):
    """Resources of one job, of each of its nodes; partition and account are the user's, not the file's."""

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
    kind: Literal["variants", "scatter", "lines", "curves"]
    """a strip for each variant, a point for each variant, lines over a knob, or a curve that each training leaves"""
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


class Choose(Knobs):
    """A knob of the task that trials choose, for every variant by itself and with equal effort."""

    knob: str
    """the knob that is chosen, such as task.rate"""
    values: list[bool | int | float | str]
    """its values; each is tried with every variant"""
    by: str | dict[str, str]
    """validation score that chooses, such as valid_rel_l2; of several tasks a map from each to its own"""
    seeds: Seeds
    """seeds of the trials, none of them one of the sweep"""

    @property
    def name(self) -> str:
        return self.knob.partition(".")[2]

    def score(self, task: str) -> str:
        """The score by which a task chooses; empty where none is named."""
        return self.by if isinstance(self.by, str) else self.by.get(task, "")

    @field_validator("knob")
    @classmethod
    def all_variants_have_it(cls, knob: str) -> str:
        if not knob.startswith("task."):
            raise ValueError("a knob of the task, which all variants have alike, such as task.rate")
        return knob

    @field_validator("values")
    @classmethod
    def there_is_a_choice(cls, values: list[Any]) -> list[Any]:
        if len({repr(value) for value in values}) < max(2, len(values)):
            raise ValueError("a list of different values, at least two")
        return values


class Equal(Knobs):
    """Makes variants equally large, costly or slow, by solving for the width of the model around each mechanism."""

    what: Literal["params", "flops", "latency"]
    """weights, operations of a forward pass of one example, or the measured time of a training step"""
    to: str
    """the mechanism whose variant is the target, at the width that the file names"""
    knob: str = "channels"
    """the model's knob that is solved for"""
    within: float = Field(default=0.05, gt=0, lt=1)
    """share of the target by which a variant may miss it"""


class Frame(Knobs):
    """What a sweep file says beside its lists of tasks, models and mechanisms."""

    question: str
    """what the sweep is to answer, in one sentence"""
    runs: PositiveInt
    """number of distinct training cells that the file describes"""
    seeds: Seeds
    """seeds of the runs; runs of one seed are paired"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """device class of all cells; auto takes cuda where there is one, or where slurm asks for GPUs"""
    gpus: PositiveInt = 1
    """GPUs that train one cell together, those of all its nodes; cost is measured on one"""
    nodes: PositiveInt = 1
    """nodes of a cluster over which they are spread, as many on each; on a CPU one process on each trains"""
    misfits: Literal["refuse", "leave_out"] = "refuse"
    """a mechanism that does not fit one of several tasks is refused, or left out there and named"""
    choose: Choose | None = None
    """trials that choose a knob for every variant"""
    equal: Equal | None = None
    """what all variants have alike, by widths solved for each"""
    slurm: Slurm | None = None
    """resources on a cluster"""
    solved: float = Field(default=0.5, gt=0, lt=1)
    """share of the way from chance to an accuracy of 1, past which a seed has solved a task"""
    figures: list[Figure] = Field(default_factory=list)
    """what report draws"""


class BareFrame(Frame):
    """What a file says that trains nothing, but looks at mechanisms alone."""

    runs: NonNegativeInt = Field(default=0, le=0)
    """there are no trainings, so it is left out"""
    seeds: Seeds = Field(default_factory=list)
    """there are none, so they are left out"""
