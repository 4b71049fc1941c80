"""Semantic segmentation: from an image to the class of every pixel.

The default are canvases of handwritten digits (_canvas.py) that stand anywhere among torn ones: a pixel's class is that
of the digit whose ink it holds, background else; of torn digits all is background. Training, validation and test
canvases show different images of digits. source ade20k is the scene parsing part of ADE20K: Zhou et al., "Semantic
Understanding of Scenes through the ADE20K Dataset", IJCV 2019. https://arxiv.org/abs/1608.05442
It is read from <data folder>/segment/ade20k/ADEChallengeData2016/; label 0, other or unlabelled, is not asked.

miou: mean over classes of intersection over union, both counted over all test pixels asked, 0 to 1, without unit;
classes that neither the prediction nor the truth has are left out of the mean.
accuracy: share of right pixels among those asked, 0 to 1; see tasks/_labelled.py for it and for loss, valid_accuracy,
valid_loss, train_loss, best_epoch and epochs. The loss on validation images chooses the epoch.
chance, chance_miou: accuracy and miou of giving every pixel the commonest class of the training pixels. On canvases
that is background, with the default knobs 0.92 and 0.084: its share of the pixels, and that share over 11 classes.

Departs from the paper: ADE20K is scored at the side that the model sees, not at each photograph's own size, and its
validation part is our test split; see _image_folders.py for how images are fitted and validation is cut.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from tasks import _canvas
from tasks._canvas import Canvas, Pool, any_of
from tasks._image_folders import Layout
from tasks._image_layouts import LAYOUTS
from tasks._labelled import BETTER, UNASKED, Answers, LabelledKnobs, Progress, streams
from tasks._pictures import Pictures
from tasks._port import Port
from tasks._registry import register

FAINT = 4  # levels of ink from which a pixel belongs to its digit


class Config(LabelledKnobs):
    source: Literal["canvas", "ade20k"] = "canvas"
    """where the images come from"""
    side: Annotated[int, Field(ge=8)] = 32
    """pixels on each axis of an image"""
    digits: PositiveInt = 3
    """of a canvas: digits on it"""
    clutter: Annotated[int, Field(ge=0)] = 3
    """of a canvas: torn digits on it, as far as they find room"""
    train: PositiveInt = 512
    """training examples"""
    valid: PositiveInt = 128
    """validation examples, which choose the epoch"""
    test: PositiveInt = 128
    """test examples"""

    cost_knobs: ClassVar[frozenset[str]] = frozenset({"source", "side", "batch"})

    @property
    def port(self) -> Port:
        """Inputs: ink, or red, green and blue, of zero mean and unit deviation over the training pixels. Outputs: the
        classes; on a canvas background, then the digits from 0."""
        inputs, outputs = (1, 1 + _canvas.KINDS) if self.source == "canvas" else (3, LAYOUTS[self.source].classes)
        return Port(inputs=inputs, outputs=outputs, shape=(self.side, self.side))

    def idle(self) -> set[str]:
        return set() if self.source == "canvas" else {"digits", "clutter"}

    @model_validator(mode="after")
    def fits(self) -> "Config":
        corners, taken = (self.side - _canvas.SIDE + 1) ** 2, (2 * _canvas.SIDE - 1) ** 2
        most = -(-corners // taken)  # so many find room wherever the ones before them went
        if self.source == "canvas" and self.digits > most:
            raise ValueError(f"a canvas of side {self.side} surely has room for {most} digits; got {self.digits}.")
        return self


@register("segment", Config, better={**BETTER, "miou": "higher"})
class Segment(Pictures):
    """The task at one setting of its knobs."""

    name = "segment"

    def layout(self) -> Layout | None:
        return LAYOUTS.get(self.config.source)

    def drawn(self, split: str, progress: Progress) -> tuple[np.ndarray, np.ndarray]:
        del progress  # it takes less than a second
        pool = _canvas.pools(self.config.data_seed)[split]
        chances = streams(self.config.data_seed, split, getattr(self.config, split))
        ink, target = zip(*(canvas(chance, pool, self.config) for chance in chances), strict=True)
        return np.stack(ink)[..., None], np.stack(target)

    def told(self, splits: Mapping[str, tuple[Tensor, Tensor]], answers: Answers | Tensor) -> dict[str, float]:
        known, target, classes = splits["train"][1], splits["test"][1], answers.shape[-1]
        commonest = known[known != UNASKED].bincount(minlength=classes).argmax()
        return {
            "miou": mean_iou(answers.argmax(-1), target, classes),
            "chance_miou": mean_iou(commonest.expand_as(target), target, classes),
        }


def mean_iou(given: Tensor, target: Tensor, classes: int) -> float:
    """Mean intersection over union of the classes that are given or true where a class is asked."""
    asked = target != UNASKED
    pairs = classes * target[asked].long() + given[asked]
    counts = pairs.bincount(minlength=classes**2).reshape(classes, classes).double()
    union = counts.sum(0) + counts.sum(1) - counts.diag()
    return (counts.diag()[union > 0] / union[union > 0]).mean().item()


def canvas(chance: np.random.Generator, pool: Pool, config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Ink and classes [side, side] of one canvas."""
    made, classes = Canvas(config.side), np.zeros((config.side, config.side), np.uint8)
    for _ in range(config.digits):
        kind, corner = int(chance.integers(len(pool))), made.room(chance)
        assert corner is not None
        image = any_of(chance, pool, kind)
        classes[made.put(image, corner)] = np.where(image >= FAINT, 1 + kind, 0)
    made.litter(chance, pool, config.clutter)
    return made.ink, classes
