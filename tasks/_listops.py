"""Nested list operations as symbols: how they are drawn, what they are worth, how Long Range Arena writes them."""

from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np

PAD, DIGITS, OPERATORS, END = 0, range(1, 11), range(11, 15), 15  # what a symbol's number means
WORDS = {str(digit): DIGITS[digit] for digit in range(10)} | dict(
    zip(("[MIN", "[MAX", "[MED", "[SM"), OPERATORS, strict=True)
)
WORDS["]"] = END
DRAWS = 100_000  # of which one must be of the right length and belong to the split
SHARES = {"train": range(8), "valid": range(8, 9), "test": range(9, 10)}  # of every ten possible expressions
SOURCE = (
    "it is in the folder listops-1000 of https://storage.googleapis.com/long-range-arena/lra_release.gz, about 8 GB,"
    " of which the three files are 0.7 GB"
)
FILES = {"train": "basic_train.tsv", "valid": "basic_val.tsv", "test": "basic_test.tsv"}


class Shape(Protocol):
    """The knobs that say which expressions are drawn; see tasks/listops.py."""

    @property
    def length(self) -> int: ...
    @property
    def min_length(self) -> int: ...
    @property
    def depth(self) -> int: ...
    @property
    def arguments(self) -> int: ...
    @property
    def nesting(self) -> float: ...


def expression(chance: np.random.Generator, shape: Shape, split: str) -> list[int]:
    """One of the split's expressions, drawn until its length fits. Raises ValueError when none comes."""
    numbers = uniform(chance)
    for _ in range(DRAWS):
        symbols = tree(numbers, shape)
        if symbols and shape.min_length < len(symbols) < shape.length and belongs(symbols, split):
            return symbols
    raise ValueError(
        f"none of {DRAWS:,} drawn expressions had more than {shape.min_length} and fewer than {shape.length} symbols;"
        " lower min_length, or raise depth, arguments or nesting."
    )


def tree(numbers: Iterator[float], shape: Shape) -> list[int]:
    """An operator, two to `arguments` arguments and the closing bracket; an argument is an operator with a chance of
    `nesting`, and a digit at the deepest level. Nothing when it grows too long."""
    symbols, missing = [OPERATORS[int(4 * next(numbers))]], [breadth(numbers, shape)]
    while missing and len(symbols) + len(missing) < shape.length:
        if not missing[-1]:
            symbols.append(END)
            missing.pop()
            continue
        missing[-1] -= 1
        if len(missing) + 1 < shape.depth and next(numbers) < shape.nesting:
            symbols.append(OPERATORS[int(4 * next(numbers))])
            missing.append(breadth(numbers, shape))
        else:
            symbols.append(DIGITS[int(10 * next(numbers))])
    return [] if missing else symbols


def breadth(numbers: Iterator[float], shape: Shape) -> int:
    return 2 + int((shape.arguments - 1) * next(numbers))


def uniform(chance: np.random.Generator) -> Iterator[float]:
    """Numbers from 0 to 1, made many at a time."""
    while True:
        yield from chance.random(256).tolist()


def belongs(symbols: list[int], split: str) -> bool:
    """Whether an expression is one of the split's: its hash decides, so that no two splits share any."""
    return int.from_bytes(sha256(bytes(symbols)).digest()[:8]) % 10 in SHARES[split]


def value(symbols: list[int]) -> int:
    """What an expression is worth, 0 to 9. Raises ValueError when its brackets or arguments are wrong."""
    operators: list[int] = []
    arguments: list[list[int]] = [[]]
    for symbol in symbols:
        if symbol in OPERATORS:
            operators.append(symbol)
            arguments.append([])
        elif symbol in DIGITS:
            arguments[-1].append(DIGITS.index(symbol))
        elif operators and arguments[-1]:
            worth = APPLY[operators.pop()](arguments.pop())
            arguments[-1].append(worth)
        else:
            raise ValueError("a bracket closes nothing")
    if operators or len(arguments[0]) != 1:
        raise ValueError("it is not one whole expression")
    return arguments[0][0]


def median(values: list[int]) -> int:
    """The whole part of the median: of an even number of values, of the mean of the two in the middle."""
    values, half = sorted(values), len(values) // 2
    return values[half] if len(values) % 2 else (values[half - 1] + values[half]) // 2


APPLY: Mapping[int, Callable[[list[int]], int]] = dict(
    zip(OPERATORS, (min, max, median, lambda values: sum(values) % 10), strict=True)
)


def padded(symbols: list[int], length: int) -> np.ndarray:
    found = np.full(length, PAD, np.uint8)
    found[: len(symbols)] = symbols
    return found


def arena(folder: Path, split: str, count: int, length: int, done: Callable[[], None]) -> tuple[np.ndarray, np.ndarray]:
    """The first examples of one of Long Range Arena's files, parentheses left out; done() is called after each.

    Raises ValueError for a file that is missing, has fewer examples, or holds anything else than it should.
    """
    file = folder / FILES[split]
    if not file.is_file():
        raise ValueError(f"There is no file {file}; {SOURCE}.")
    inputs, target = [], []
    with file.open(encoding="ascii", errors="replace") as lines:
        if (header := next(lines, "").rstrip("\n")) != "Source\tTarget":
            raise ValueError(f"{file} should open with the columns Source and Target; found {header[:40]!r}.")
        for line, text in enumerate(islice(lines, count), 2):
            symbols, answer = read(text.rstrip("\n").split("\t"), where := f"{file}, line {line}")
            if len(symbols) > length:
                raise ValueError(f"{where} has {len(symbols)} symbols, more than length {length}; the arena's is 2000.")
            inputs.append(padded(symbols, length))
            target.append(answer)
            done()
    if len(inputs) < count:
        raise ValueError(f"{file} has {len(inputs)} examples; {split} asks for {count}.")
    return np.stack(inputs), np.array(target, np.uint8)


def read(columns: list[str], where: str) -> tuple[list[int], int]:
    """The symbols and the answer of a line, which must be what the expression is worth."""
    if len(columns) != 2:
        raise ValueError(f"{where} is damaged: it should have two columns; found {len(columns)}.")
    words = [word for word in columns[0].split() if word not in ("(", ")")]
    if unknown := next((word for word in words if word not in WORDS), None):
        raise ValueError(f"{where} is damaged: {unknown!r} is no symbol of a list operation.")
    symbols = [WORDS[word] for word in words]
    try:
        worth = value(symbols)
    except ValueError as error:
        raise ValueError(f"{where} is damaged: {error}.") from None
    if columns[1] != str(worth):
        raise ValueError(f"{where} is damaged: its expression is worth {worth}; found target {columns[1]!r}.")
    return symbols, worth
