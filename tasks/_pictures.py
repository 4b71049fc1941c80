"""What tasks on images share: pixels are kept as whole numbers and given as floats of zero mean and unit deviation.

Mean and deviation are each channel's over all pixels of the training examples. Where the examples come from files, the
arrays remember every file's size and SHA-256, and a file that has changed since is refused; see _image_folders.py.
"""

import json
from functools import cached_property

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from tasks._data import load
from tasks._image_folders import Layout, collect, refuse_changes
from tasks._labelled import SPLITS, Arrays, Labelled, Progress

FILES, SCALE = "files", "scale"


class Pictures(Labelled):
    """A labelled task whose inputs are images, [examples, height, width, channels] of uint8 on disk."""

    def layout(self) -> Layout | None:
        """The files that the knobs ask for, None where the examples are drawn."""
        raise NotImplementedError

    def drawn(self, split: str, progress: Progress) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and targets of a split that needs no files."""
        raise NotImplementedError

    def generate(self, progress: Progress, workers: int) -> Arrays:
        layout, found = self.layout(), {}
        if layout:
            sizes = {split: getattr(self.config, split) for split in SPLITS}
            made, files = collect(
                layout, self.folder.parent, sizes, self.config.side, self.config.data_seed, (progress, workers)
            )
            found[FILES] = np.frombuffer(json.dumps(files, sort_keys=True).encode(), np.uint8)
        else:
            made = {split: self.drawn(split, progress) for split in SPLITS}
            progress(1, 1)
        for split, (inputs, target) in made.items():
            found |= {f"{split}_inputs": inputs, f"{split}_target": target}
        return found | {SCALE: scale(found["train_inputs"])}

    def prepare(self, progress: Progress, workers: int) -> str:
        """As every labelled task. Raises ValueError for files that are missing, damaged, or changed since."""
        content, layout = super().prepare(progress, workers), self.layout()
        if layout:
            known = json.loads(load(self.folder, self.recipe, FILES).tobytes())
            refuse_changes(layout, self.folder, known)
        return content

    @cached_property
    def scale(self) -> Tensor:
        """Mean and deviation of each channel over the training examples [2, channels]."""
        return torch.from_numpy(load(self.folder, self.recipe, SCALE))

    def seen(self, inputs: Tensor) -> Tensor:
        """Images of zero mean and unit deviation over the training examples."""
        mean, deviation = self.scale.to(inputs.device)
        return inputs.float().sub_(mean).div_(deviation)


def scale(images: UInt8[np.ndarray, "images height width channels"]) -> np.ndarray:
    """Mean and deviation of each channel [2, channels]; exact, from the counts of the 256 values."""
    levels, found = np.arange(256.0), []
    for channel in range(images.shape[-1]):
        share = np.bincount(images[..., channel].ravel(), minlength=256) / images[..., channel].size
        mean = share @ levels
        found.append((mean, max(np.sqrt(share @ (levels - mean) ** 2), 1e-6)))
    return np.array(found, np.float32).T
