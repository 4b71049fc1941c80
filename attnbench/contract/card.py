"""The report card: every check over the slots it belongs to, one line each."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from time import perf_counter
from traceback import extract_tb
from typing import Any

from attnbench.contract import distance, growth, leaks, oracle, reach, shapes, symmetry
from attnbench.contract.compiled import Compiling
from attnbench.contract.slots import Finding, Slot, Subject, Word

Slots = Callable[[Subject], Sequence[Slot]]


@dataclass(frozen=True)
class Check:
    """One line of the card.

    over: the slots it looks at. quick: the look that a sweep takes before it starts; None where it takes none.
    """

    name: str
    look: Callable[[Slot], Finding]
    over: Slots
    quick: Callable[[Slot], Finding] | None = None


@dataclass(frozen=True, kw_only=True)
class Line:
    """What a check found over its slots: the first failure, else the largest number."""

    name: str
    word: Word
    about: str
    number: float | None
    seconds: float

    def __str__(self) -> str:
        number = "" if self.number is None else f"{self.number:.3g}"
        return f"{self.name:19} {self.word:14} {number:>9}  {self.about}"


def same(name: str, look: Callable[[Slot], Finding], over: Slots) -> Check:
    """A check that a sweep makes too."""
    return Check(name, look, over, look)


def wide(name: str, look: Callable[[Slot], Finding]) -> Check:
    """A check at other places too, which a sweep makes from the first block."""

    def quick(slot: Slot) -> Finding:
        found = look(slot)
        for other in [] if slot.site.block or found.word == "fail" else slot.others():
            if (there := tried(look, other)).word == "fail":
                return there._replace(about=f"at {other.label}, {there.about}")
        return found

    return Check(name, look, Subject.wide, quick)


CHECKS = (
    wide("shape", shapes.shape),
    wide("batch", leaks.batch),
    wide("causality", leaks.causality),
    Check("reach", reach.reach, Subject.each, reach.quick_reach),
    same("same twice", leaks.chance, Subject.each),
    wide("no trace", leaks.state),
    same("training", leaks.training, Subject.each),
    same("input untouched", leaks.untouched, Subject.each),
    wide("gradients", reach.gradients),
    same("derivative", reach.derivative, Subject.each),
    Check("slow form", oracle.oracle, Subject.usual, oracle.quick_oracle),
    Check("layout", leaks.layout, Subject.base),
    Check("dtypes", shapes.dtypes, Subject.base),
    Check("autocast", shapes.autocast, Subject.each),
    Check("large inputs", shapes.large, Subject.each),
    Check("plain inputs", shapes.plain, Subject.each),
    Check("sizes", shapes.sizes, Subject.usual),
    Check("choices", shapes.choices, Subject.usual),
    Check("meta device", shapes.meta, Subject.each),
    Check("saved weights", shapes.saved, Subject.usual),
    Check("bound to shape", shapes.bound, Subject.usual),
    Check("order", growth.order, Subject.usual),
    Check("memory growth", growth.memory, Subject.usual),
    Check("permutation", symmetry.permutation, Subject.usual),
    Check("shift", symmetry.shift, Subject.usual),
    Check("distance to full", distance.distance, Subject.usual),
)
COMPILE, FIRST = "torch.compile", "not looked at, for the line of its shape is red"
UNCOMPARED = "its numbers were compared with nothing: no slow form"
LAST = Check("time growth", growth.time, Subject.usual)  # when nothing else is at work


def examine(subject: Subject, tell: Callable[[Line], None] = lambda _: None) -> list[Line]:
    """The whole card, each line told as soon as it is known."""
    try:
        usual = subject.usual()
    except ValueError as error:
        line = Line(name="shape", word="fail", about=str(error), number=None, seconds=0.0)
        tell(line)
        return [line]
    compiling, slots, lines = Compiling(usual[0]), {}, []
    compile_check = Check(COMPILE, lambda _: compiling.finding(), lambda _: usual[:1])
    try:
        for check in (*CHECKS, compile_check, LAST):
            if lines and lines[0].word == "fail":
                lines.append(Line(name=check.name, word="not applicable", about=FIRST, number=None, seconds=0.0))
            else:
                slots[check.over] = slots.get(check.over) or check.over(subject)
                lines.append(drawn(check.name, check.look, slots[check.over]))
            tell(lines[-1])
    finally:
        compiling.stop()
    return lines


def drawn(name: str, look: Callable[[Slot], Finding], slots: Iterable[Slot]) -> Line:
    """One line over all slots; the first that fails ends it."""
    start, found = perf_counter(), []
    for slot in slots:
        finding = tried(look, slot)
        found.append((slot, finding))
        if finding.word == "fail":
            break
    slot, worst = max(found, key=lambda pair: weight(pair[1]))
    counted = [finding for _, finding in found if finding.word != "not applicable"]
    where = f" [{slot.label}]" if worst.word == "fail" or len(counted) == 1 else ""
    where = where or (f" [{len(counted)} places]" if counted else "")
    about = worst.about + where
    return Line(name=name, word=worst.word, about=about, number=worst.number, seconds=perf_counter() - start)


def weight(finding: Finding) -> tuple[int, float]:
    """What a line shows of several findings: a failure before all, then what applies, then the largest number."""
    return ("not applicable", "pass", "fact", "fail").index(finding.word), finding.number or 0.0


def tried(look: Callable[[Slot], Finding], slot: Slot) -> Finding:
    """A look at a slot; whatever the mechanism raises is a failure, with the place where it was raised."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return look(slot)
        except (Exception, SystemExit) as error:
            frames = [frame for frame in extract_tb(error.__traceback__) if "mechanisms" in frame.filename] or [None]
            frames = frames if frames[-1] else list(extract_tb(error.__traceback__))[-1:]
            frame = frames[-1]
            at = f" ({frame.filename.rpartition('/')[2]}, line {frame.lineno})" if frame else ""
            return Finding("fail", shapes.told(error) + at)


def counts(lines: Iterable[Line]) -> dict[str, int]:
    words = [line.word for line in lines]
    return {word: words.count(word) for word in ("pass", "fail", "fact", "not applicable") if word in words}


def compared(lines: Iterable[Line]) -> bool:
    """Whether the numbers were held to a slow form."""
    return any(line.name == "slow form" and line.word in ("pass", "fail") for line in lines)


def ending(lines: Sequence[Line], seconds: float) -> str:
    """The last line of a card: how many of each word, and whether anything says that its numbers are right."""
    words = ", ".join(f"{count} {word}" for word, count in counts(lines).items())
    return f"{words}; {seconds:.0f} s." if compared(lines) else f"{words}; {UNCOMPARED}; {seconds:.0f} s."


def as_json(subject: Subject, lines: Sequence[Line]) -> dict[str, Any]:
    knobs = subject.entry.config(**subject.knobs).model_dump()
    return {
        "name": subject.entry.name,
        "knobs": knobs,
        "counts": counts(lines),
        "compared": compared(lines),
        "lines": [asdict(one) for one in lines],
    }
