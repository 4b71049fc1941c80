"""Image classification: from an image to its class.

The default are the 8 x 8 handwritten digits that scikit-learn ships, enlarged; see _canvas.py for where they come from
and how they are dealt to the splits. https://scikit-learn.org/stable/datasets/toy_dataset.html
source canvas asks for more: two digits stand at least half a canvas apart among torn ones, and the answer is their sum
modulo `kinds` (question sum), or whether they show the same digit (same; then never the same image twice). Either digit
alone, and any part of the canvas that shows at most one of them, tells nothing of the answer.
The other sources are the field's data sets, read from their published files under <data folder>/images/<source>/:
CIFAR-100, Tiny-ImageNet, Flowers-102, Food-101, Oxford-IIIT Pets, Stanford Cars, ImageNet-1k, or, with source folder,
any folder of class folders under <data folder>/images/<dataset>/. _image_folders.py says how splits are cut and images
fitted to `side`; no training image is altered at random.

accuracy: top-1, share of test images whose class has the highest answer, 0 to 1, without unit.
top5: share whose class is among the five highest, 0 to 1; with five classes or fewer it is 1.
chance_top5: top5 of always giving the five classes that are commonest in training, of equally common ones the first.
loss, valid_accuracy, valid_loss, train_loss, best_epoch, epochs, chance: see tasks/_labelled.py; the loss on validation
images chooses the epoch, test images are read once.
Chance levels: digits 0.1 and top5 0.5; sum 1 / kinds, same 0.5; of the published sets about 1 / classes and 5 /
classes. On a canvas, adding up what single places say, as a model without mixing does, cannot reach 1: fitted by
cross-entropy to all pairs of digits such sums stay at chance, and no weights make them right on more than 0.75 with 2
kinds. Seen with two blocks on patches of 4 after 12 epochs of 6000 canvases of side 16 without clutter, question same,
2 kinds: 0.996 with full attention (4 kinds: 0.66), 0.53 with no mixing at all.
"""

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from tasks import _canvas
from tasks._canvas import Canvas, Pool, any_of, far_apart
from tasks._image_folders import Layout
from tasks._image_layouts import LAYOUTS, own
from tasks._labelled import BETTER, Answers, LabelledKnobs, Progress, streams
from tasks._pictures import Pictures
from tasks._port import Port
from tasks._registry import register

Source = Literal[
    "digits",
    "canvas",
    "folder",
    "cifar100",
    "tiny_imagenet",
    "flowers102",
    "food101",
    "pets",
    "cars",
    "imagenet",
]
OF_CANVAS, OF_FOLDER = {"question", "kinds", "clutter"}, {"dataset", "classes"}


class Config(LabelledKnobs):
    source: Source = "digits"
    """where the images come from"""
    side: Annotated[int, Field(ge=8)] = 16
    """pixels on each axis of an image; digits need a multiple of 8, a canvas at least 16"""
    question: Literal["same", "sum"] = "same"
    """of a canvas: whether the two digits are the same, or their sum modulo kinds"""
    kinds: Annotated[int, Field(ge=2, le=10)] = 2
    """of a canvas: different digits, from 0 on; more are harder to learn"""
    clutter: Annotated[int, Field(ge=0)] = 4
    """of a canvas: torn digits on it, as far as they find room"""
    dataset: str = "photos"
    """of source folder: its name under <data folder>/images/"""
    classes: Annotated[int, Field(ge=2, le=30_000)] = 10
    """of source folder: how many classes it has"""
    train: PositiveInt = 1000
    """training examples"""
    valid: PositiveInt = 250
    """validation examples, which choose the epoch"""
    test: PositiveInt = 400
    """test examples"""

    cost_knobs: ClassVar[frozenset[str]] = frozenset({"source", "side", "question", "kinds", "classes", "batch"})

    @property
    def port(self) -> Port:
        """Inputs: ink, or red, green and blue, of zero mean and unit deviation over the training images."""
        if self.source in ("digits", "canvas"):
            outputs = {"digits": 10, "canvas": 2 if self.question == "same" else self.kinds}[self.source]
            return Port(inputs=1, outputs=outputs, shape=(self.side, self.side), once=True)
        outputs = LAYOUTS[self.source].classes if self.source in LAYOUTS else self.classes
        return Port(inputs=3, outputs=outputs, shape=(self.side, self.side), once=True)

    def idle(self) -> set[str]:
        uses = {"canvas": OF_CANVAS, "folder": OF_FOLDER}.get(self.source, set())
        return (OF_CANVAS | OF_FOLDER) - uses

    @model_validator(mode="after")
    def fits(self) -> "Config":
        if self.source == "digits" and self.side % _canvas.SIDE:
            raise ValueError(f"digits are enlarged to a multiple of 8 pixels; side is {self.side}.")
        if self.source == "canvas" and self.side < 2 * _canvas.SIDE:
            raise ValueError(f"two digits of 8 pixels far apart need a side of 16; it is {self.side}.")
        if not re.fullmatch(r"\w[\w.-]*", self.dataset):
            raise ValueError(f"dataset is the name of one folder, such as photos; got {self.dataset!r}.")
        return self


@register("images", Config, better={**BETTER, "top5": "higher"})
class Images(Pictures):
    """The task at one setting of its knobs."""

    name = "images"
    ranks = 5

    def layout(self) -> Layout | None:
        if self.config.source == "folder":
            return own(self.config.dataset, self.config.classes)
        return LAYOUTS.get(self.config.source)

    def drawn(self, split: str, progress: Progress) -> tuple[np.ndarray, np.ndarray]:
        del progress  # it takes less than a second
        config, pool = self.config, _canvas.pools(self.config.data_seed)[split]
        size = getattr(config, split)
        if config.source == "digits":
            return dealt(pool, size, config.side, split)
        chances = streams(config.data_seed, split, size)
        target = np.arange(size) % config.port.outputs
        pairs = zip(chances, target.tolist(), strict=True)
        made = [canvas(chance, pool, config, label) for chance, label in pairs]
        return np.stack(made)[..., None], target.astype(np.uint8)

    def told(self, splits: Mapping[str, tuple[Tensor, Tensor]], answers: Answers | Tensor) -> dict[str, float]:
        target = splits["test"][1]
        five = min(5, answers.shape[-1])
        commonest = splits["train"][1].bincount(minlength=answers.shape[-1]).argsort(descending=True, stable=True)
        return {
            "top5": among(answers.topk(five).indices, target),
            "chance_top5": among(commonest[:five].expand(len(target), five), target),
        }


def among(given: Tensor, target: Tensor) -> float:
    """Share of targets [B] that are among the classes given [B, k]."""
    return (given == target[:, None]).any(1).double().mean().item()


def dealt(pool: Pool, size: int, side: int, split: str) -> tuple[np.ndarray, np.ndarray]:
    """The first digits of a pool, class after class in turn, so that none has two more than another."""
    most = len(pool) * len(pool[0])
    if size > most:
        raise ValueError(f"images.{split} is {size}, but there are {most} digits for it; lower it, or take canvases.")
    target = np.arange(size) % len(pool)
    images = np.stack([pool[kind][number // len(pool)] for number, kind in enumerate(target.tolist())])
    factor = side // _canvas.SIDE
    return images.repeat(factor, 1).repeat(factor, 2)[..., None], target.astype(np.uint8)


def canvas(chance: np.random.Generator, pool: Pool, config: Config, label: int) -> np.ndarray:
    """A canvas [side, side] with this answer."""
    pool, made = pool[: config.kinds], Canvas(config.side)
    corners = far_apart(chance, config.side)
    for image, corner in zip(pair(chance, pool, config.question, label), corners, strict=True):
        made.put(image, corner)
    made.litter(chance, pool, config.clutter)
    return made.ink


def pair(chance: np.random.Generator, pool: Pool, question: str, label: int) -> tuple[np.ndarray, np.ndarray]:
    """Two images of digits with this answer; each digit is as likely under every answer, in either place."""
    first = int(chance.integers(len(pool)))
    if question == "sum":
        return any_of(chance, pool, first), any_of(chance, pool, (label - first) % len(pool))
    if label:
        one, other = chance.choice(len(pool[first]), 2, replace=False)
        return pool[first][one], pool[first][other]
    second = (first + int(chance.integers(1, len(pool)))) % len(pool)
    return any_of(chance, pool, first), any_of(chance, pool, second)
