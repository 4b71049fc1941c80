"""Makes every variant as large, as costly or as slow as a named one: `equal: {what: params, to: full}`.

The model's width is solved for each mechanism: for weights and operations on the meta device, where only shapes are
counted; for latency by a record of what was measured. Widths are multiples of the mechanism's heads, so the target is
met within a tolerance only, and the row says which share of it was reached.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import lcm
from pathlib import Path
from typing import Any

from attnbench._cells import Variant, cost_cell
from attnbench._entries import Chosen, Part
from attnbench._sections import Equal, Frame
from attnbench._widths import Ask, Find, missed
from attnbench._yaml import SweepError, line
from attnbench.cell import Spec
from attnbench.flops import count
from attnbench.models import counted, maker
from mechanisms import KnobError, configure, nearest

WIDEST = 64  # times the width that the file names, beyond which none is sought
NEAR = 4  # steps to both sides of the solution that are looked at, and over which widths may be refused
AMOUNTS: dict[str, int | None] = {}  # what was counted, by what it was counted of


@dataclass(frozen=True)
class Solved:
    """A model with the width that its mechanism needs, and the share of the target that it reaches, once known."""

    model: Chosen
    mechanism: Chosen | None
    ratio: float | None


@dataclass(frozen=True)
class Equaliser:
    """Solves for widths as the section `equal` of one sweep file says.

    measured: finds the record of a width of equal latency. unmeasured: what has none; it keeps its width until then.
    """

    file: Path
    text: Mapping[str, Any]
    equal: Equal
    device: str
    measured: Find
    unmeasured: list[Ask] = field(default_factory=list)

    def solve(self, task: Chosen, model: Chosen, inside: Sequence[Chosen]) -> list[Solved]:
        """The model for every mechanism. Raises SweepError where it has no such width, or none meets the target."""
        equal = self.equal
        widths = [
            name for name, value in model.values.items() if isinstance(value, int) and not isinstance(value, bool)
        ]
        if equal.knob not in widths:
            raise self.refusal("knob", f"{model.name} has no width {equal.knob!r}.{nearest(equal.knob, widths)}")
        if equal.knob in model.config.idle():
            raise self.refusal("knob", f"{model.name}.{equal.knob} changes nothing beside its other knobs.")
        targets = [mechanism for mechanism in inside if mechanism.name == equal.to]
        if len(targets) != 1:
            names = [mechanism.name for mechanism in inside]
            has = f"it has {len(targets)} variants" if targets else f"there is none.{nearest(equal.to, names)}"
            raise self.refusal("to", f"one variant of {equal.to!r} is the target, and {has}.".replace("..", "."))
        have = amount(equal.what, task, model, targets[0])
        if have is None or not (have or equal.what == "latency"):
            raise self.refusal(
                "to", f"{equal.to} cannot be built at {equal.knob} {model.values[equal.knob]}, or has none."
            )
        model = replace(model, written=tuple(knob for knob in model.written if knob != equal.knob))
        if equal.what == "latency":
            return [self.timed(task, model, mechanism, targets[0]) for mechanism in inside]
        return [met(self.file, equal, task, model, mechanism, have) for mechanism in inside]

    def timed(self, task: Chosen, model: Chosen, mechanism: Chosen, target: Chosen) -> Solved:
        """The model as wide as the record says; as it is for the target, and where there is no record yet."""
        if mechanism is target:
            return Solved(model, mechanism, 1.0)
        ask = self.ask(task, model, mechanism, target)
        if (record := self.measured(ask)) is None:
            self.unmeasured.append(ask)
            return Solved(model, mechanism, None)
        wider, why = widened(model, ask.knob, record["width"]), missed(ask, record)
        if wider is None or why:
            anew = f"deleting the record {ask.key}.json has it measured anew"
            raise SweepError(self.file, mechanism.line, f"equal: {why or ask.label}; {anew}.")
        return Solved(wider, mechanism, record["ratio"])

    def ask(self, task: Chosen, model: Chosen, mechanism: Chosen, target: Chosen) -> Ask:
        """What would have to be measured for a mechanism."""

        def cost(inside: Chosen) -> Spec:
            return cost_cell(Variant(task, model, inside, self.device).trainings([0], 1)[0]).spec

        knobs = ", ".join(f"{knob} {mechanism.values[knob]}" for knob in mechanism.written)
        return Ask(
            label=f"{mechanism.name}{f' ({knobs})' if knobs else ''} in {model.name} on {task.name}",
            knob=self.equal.knob,
            step=lcm(*heads(mechanism)),
            most=WIDEST * model.values[self.equal.knob],
            within=self.equal.within,
            variant=cost(mechanism),
            target=cost(target),
        )

    def refusal(self, word: str, sentence: str) -> SweepError:
        place = line(self.text["equal"], word) or line(self.text, "equal")
        return SweepError(self.file, place, f"equal.{word}: {sentence}")


def met(file: Path, equal: Equal, task: Chosen, model: Chosen, mechanism: Chosen, target: int) -> Solved:
    """The model for one mechanism; as it is for the target itself. Raises SweepError where it misses the target."""
    if mechanism.name == equal.to:
        return Solved(model, mechanism, 1.0)
    found, ratio = solved(equal, task, model, mechanism, target)
    if abs(ratio - 1) > equal.within:
        reached = f"{equal.knob} {found.values[equal.knob]} has {ratio:.3f} of them"
        wanted = f"{equal.to}'s {target:,} {equal.what} within {equal.within:g}"
        raise SweepError(file, mechanism.line, f"equal: {mechanism.name} cannot have {wanted}: {reached}.")
    return Solved(found, mechanism, ratio)


def equalising(
    file: Path, text: Mapping[str, Any], frame: Frame, models: Sequence[Part], device: str, widths: Find
) -> Equaliser | None:
    """What solves for widths, where the file wants that. Raises SweepError for a width that is an axis."""
    if frame.equal is None:
        return None
    refuse_axis(file, models, frame.equal.knob)
    return Equaliser(file, text, frame.equal, device, widths)


def refuse_axis(file: Path, parts: Sequence[Part], knob: str) -> None:
    """Raises SweepError where a model names several widths, of which none could be told from another by its name."""
    for part in parts:
        if isinstance(part.knobs.get(knob), list):
            place = line(part.node, knob)
            raise SweepError(file, place, f"{part.name}.{knob} is solved for, so it takes one value, the target's.")


def solved(equal: Equal, task: Chosen, model: Chosen, mechanism: Chosen, target: int) -> tuple[Chosen, float]:
    """The model with the width that comes nearest, the smaller of two equally near, and its share of the target."""
    step, first = lcm(*heads(mechanism)), model.values[equal.knob]

    def at(multiple: int) -> int | None:
        wider = widened(model, equal.knob, multiple * step)
        return None if wider is None else amount(equal.what, task, wider, mechanism)

    middle = crossing(at, target, -(-WIDEST * first // step))
    around = range(max(1, middle - NEAR), middle + NEAR + 1)
    found = [(abs(have / target - 1), multiple, have) for multiple in around if (have := at(multiple))]
    if not found:
        return model, 0.0
    _, multiple, have = min(found)
    wider = widened(model, equal.knob, multiple * step)
    assert wider is not None
    return wider, have / target


def crossing(at: Callable[[int], float | None], target: float, most: int) -> int:
    """The least whole number at which a rising function reaches the target, by bisection; `most` where none does.

    A number without a value takes that of the next one that has one, if it is near.
    """

    def reaches(number: int) -> bool:
        near = (at(further) for further in range(number, number + NEAR + 1))
        return next((value for value in near if value is not None), 0) >= target

    low, high = 0, 1
    while high < most and not reaches(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return high


def heads(mechanism: Chosen) -> list[int]:
    """The numbers by which a width must be divisible, of all stages."""
    value = mechanism.values.get("heads", 1)
    return list(value.values()) if isinstance(value, Mapping) else [value]


def widened(model: Chosen, knob: str, width: int) -> Chosen | None:
    """The model at another width; None where its knobs refuse that."""
    try:
        config = configure(model.entry.config, {**model.values, knob: width}, of=model.name)
    except KnobError:
        return None
    return Chosen(name=model.name, entry=model.entry, config=config, written=model.written, line=model.line)


def amount(what: str, task: Chosen, model: Chosen, mechanism: Chosen | None) -> int | None:
    """What is to be equal, of one example, or weights for what is not counted; None where it cannot be built so."""
    inside = counted((mechanism.name, mechanism.values)) if mechanism else None
    port = task.config.port
    key = repr((what, port, model.name, model.values, inside))
    if key not in AMOUNTS:
        try:
            work = count(maker(model.name, model.values, inside, 0), port)
        except ValueError:
            AMOUNTS[key] = None
        else:
            AMOUNTS[key] = work.matmul_flops + work.fft_flops if what == "flops" else work.params
    return AMOUNTS[key]
