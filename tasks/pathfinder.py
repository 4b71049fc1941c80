"""Pathfinder: whether two marked ends in an image of dashed curves belong to one curve.

Linsley et al., "Learning Long-Range Spatial Dependencies with Horizontal Gated Recurrent Units", 2018.
https://arxiv.org/abs/1805.08315
As in Tay et al., "Long Range Arena", 2020, section 2.2.5. https://arxiv.org/abs/2011.04006
Two long curves and shorter ones cross the image without touching; the marks lie on the ends of one long curve, answer
1, or of both, answer 0. A point is a pixel's brightness, 0 to 1; `flat` reads the image as a sequence of its rows.

accuracy, loss, valid_accuracy, valid_loss, train_loss, best_epoch, epochs, chance: see tasks/_labelled.py; an answer is
an image's, chance is 1 / 2: of drawn images every second one is connected.

Sources: `generated` draws images; all but the marks says nothing about the answer, and how far the marks are from each
other and which way curves leave them hardly more: a random forest that knows the marks' distance, their distances from
the edge and these angles, fitted on 300 images, is right on 0.59 of 300 others (on 0.70 where curves have three
dashes). `lra` reads the folders pathfinder32, pathfinder64 and so on of Long Range Arena's release in the data
folder's pathfinder/lra/: of 200,000 images a level, in the order of its lists, the first eight tenths train, the next
validates, the last tests, of each the first that many. The arena's table has side 32 and the level of 14 dashes.

Departs from the paper: curves are drawn by ourselves, bend by a uniform random angle, and all have one brightness; the
distances of the marks and the angles at which curves leave them agree between the answers; there are no single dashes
beside the curves. Departs from the arena: it shares 80/10/10 in an order that its data library shuffled, so that its
test images are others.
"""

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator
from torch import Tensor

from tasks._labelled import BETTER, SPLITS, Arrays, Labelled, LabelledKnobs, Progress, streams
from tasks._pathfinder import APART, paint, scene
from tasks._pathfinder_lra import Level, images, listed, part
from tasks._port import Port
from tasks._registry import register

SIDES = (32, 64, 128, 256)  # that the arena has


class Config(LabelledKnobs):
    source: Literal["generated", "lra"] = "generated"
    """images drawn here, or Long Range Arena's in the data folder's pathfinder/lra/"""
    side: Annotated[int, Field(ge=12, le=256)] = 32
    """pixels on each axis of an image"""
    flat: bool = False
    """whether the image is given as a sequence of pixels, row after row"""
    level: Level = "curv_contour_length_14"
    """the arena's folder of a difficulty: long curves of 6, 9 or 14 dashes"""
    dashes: PositiveInt = 6
    """dashes of a drawn long curve; a distractor has a third as many"""
    distractors: NonNegativeInt = 6
    """most drawn curves beside the two long ones; fewer where there is no room"""
    dash: PositiveInt = 2
    """length of a drawn dash in pixels"""
    gap: NonNegativeInt = 1
    """pixels between two drawn dashes; 0 draws unbroken curves"""
    bend: Annotated[float, Field(gt=0, le=1.6)] = 0.8
    """largest angle between a drawn dash and the next, in radians"""

    cost_knobs: ClassVar[frozenset[str]] = frozenset({"side", "flat", "batch"})
    training: ClassVar[frozenset[str]] = LabelledKnobs.training | {"flat"}

    def idle(self) -> set[str]:
        drawn = {"dashes", "distractors", "dash", "gap", "bend", "data_seed"}
        return drawn if self.source == "lra" else {"level"}

    @property
    def port(self) -> Port:
        return Port(inputs=1, outputs=2, shape=(self.side**2,) if self.flat else (self.side, self.side), once=True)

    @model_validator(mode="after")
    def an_image_can_be(self) -> "Config":
        pixels = self.dashes * (self.dash + self.gap)
        if self.source == "generated" and pixels <= APART:
            raise ValueError(
                f"{self.dashes} dashes of {self.dash} + {self.gap} pixels are {pixels} long; two marks need more"
                f" than {APART:g} between them, so raise dashes or dash."
            )
        if self.source == "lra" and self.side not in SIDES:
            raise ValueError(f"the arena's images have side {', '.join(map(str, SIDES))}; got {self.side}.")
        return self


@register("pathfinder", Config, better=BETTER, version=2)
class Pathfinder(Labelled):
    """The task at one setting of its knobs."""

    name = "pathfinder"
    version = 2  # in which the directions at the marks agree between the answers
    config: Config

    def __init__(self, config: Config, data: Path):
        super().__init__(config, data)
        self.release = data / self.name / "lra" / f"pathfinder{config.side}"

    def generate(self, progress: Progress, workers: int) -> Arrays:
        """Every split's images, 0 to 255 [images, side, side], and answers [images]."""
        total, numbers = sum(getattr(self.config, split) for split in SPLITS), count(1)

        def done() -> None:
            progress(next(numbers), total)

        return self.drawn(done) if self.config.source == "generated" else self.given(workers, done)

    def drawn(self, done: Callable[[], None]) -> Arrays:
        """Images of our own; every second one is connected."""
        found: dict[str, np.ndarray] = {}
        for split in SPLITS:
            made = []
            for number, chance in enumerate(streams(self.config.data_seed, split, getattr(self.config, split))):
                made.append(paint(scene(chance, self.config, bool(number % 2)), self.config.gap))
                done()
            found[f"{split}_inputs"] = np.stack(made)
            found[f"{split}_target"] = np.arange(len(made), dtype=np.uint8) % 2
        return found

    def given(self, workers: int, done: Callable[[], None]) -> Arrays:
        """Long Range Arena's images."""
        entries = listed(self.release, self.config.level)
        chosen = {split: part(entries, split, getattr(self.config, split)) for split in SPLITS}
        found: dict[str, np.ndarray] = {}
        for split, ones in chosen.items():
            found[f"{split}_inputs"] = images(ones, self.config.side, workers, done)
            found[f"{split}_target"] = np.array([one.answer for one in ones], np.uint8)
        return found

    def seen(self, inputs: Tensor) -> Tensor:
        """Images, 0 to 1, in the port's shape."""
        return inputs.float().reshape(-1, *self.config.port.shape, 1) / 255
