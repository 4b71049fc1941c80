"""The state of a training on disk, so that one that was killed goes on where it stood, with the same numbers.

A checkpoint is one file: a line with the SHA-256 of all that follows, a line that says whose it is, and what torch
saves of tensors and plain values. It is written beside its place, synced and renamed, so that the one before stays
until the next is whole. One that is damaged, or of another cell, code or torch, is set aside and never trusted.
"""

import io
import json
import logging
import os
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

LOG = logging.getLogger("attnbench.checkpoint")
EVERY_S = 60.0
CALM = 0.1  # share of that time for which the end of an epoch waits, so that short epochs are not spent on writing
FORMAT = 1  # of the file; raised when it changes
NAME, ASIDE, DRAFT = "state.pt", "aside.pt", ".part"


class Refused(Exception):
    """A checkpoint that is not to be used, and why."""


@dataclass(kw_only=True)
class Checkpoint:
    """Where one training keeps its state.

    folder: its own, shared by all attempts at the training; made when it is first needed.
    of: words that say what is trained and with what code; a checkpoint with others is foreign.
    every_s: seconds between two checkpoints within an epoch; the end of an epoch may come after a tenth of them.
    earlier_s: seconds that attempts before this one had worked up to the checkpoint that was loaded.
    """

    folder: Path
    of: Mapping[str, str]
    every_s: float = EVERY_S
    earlier_s: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._began = self._saved = time.monotonic()

    @property
    def file(self) -> Path:
        return self.folder / NAME

    @property
    def key(self) -> dict[str, Any]:
        """Everything that has to agree between who saved and who loads."""
        return {**self.of, "torch": torch.__version__, "format": FORMAT}

    def due(self, *, epoch_ended: bool = False) -> bool:
        """Whether it is time to save."""
        return time.monotonic() - self._saved >= self.every_s * (CALM if epoch_ended else 1.0)

    def save(self, state: Mapping[str, Any]) -> None:
        """Replaces the checkpoint, durably. A disk that does not take it is told, and the training goes on."""
        spent = self.earlier_s + time.monotonic() - self._began
        payload = io.BytesIO()
        torch.save({**state, "spent_s": spent}, payload)
        rest = json.dumps(self.key, sort_keys=True).encode() + b"\n" + payload.getvalue()
        draft = self.folder / f"{uuid.uuid4().hex}{DRAFT}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            publish(draft, self.file, sha256(rest).hexdigest().encode() + b"\n" + rest)
        except OSError as error:
            LOG.warning("The checkpoint could not be written, training goes on: %s", error)
            with suppress(OSError):
                draft.unlink(missing_ok=True)
        self._saved = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """The state that was saved last, on the CPU; None where there is none that can be trusted."""
        for draft in self.folder.glob(f"*{DRAFT}"):  # of attempts that were killed while they wrote
            with suppress(OSError):
                draft.unlink()
        try:
            content = self.file.read_bytes()
        except FileNotFoundError:
            return None
        try:
            state = self.read(content)
        except Refused as why:
            LOG.warning("The checkpoint %s, so it is set aside and training starts anew.", why)
            self.file.replace(self.folder / ASIDE)
            return None
        self.earlier_s = state.pop("spent_s")
        LOG.warning("Training goes on from a checkpoint, after %.0f s of earlier attempts.", self.earlier_s)
        return state

    def read(self, content: bytes) -> dict[str, Any]:
        """The state in these bytes. Raises Refused."""
        digest, _, rest = content.partition(b"\n")
        if sha256(rest).hexdigest().encode() != digest:
            raise Refused("is damaged")
        words, _, payload = rest.partition(b"\n")
        key = json.loads(words)
        if other := [name for name in {**self.key, **key} if key.get(name) != self.key.get(name)]:
            raise Refused(f"is of another {other[0]}: {key.get(other[0])}, not {self.key.get(other[0])}")
        try:
            return torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        except (UnpicklingError, RuntimeError, EOFError) as error:
            why = str(error).split("\n")[0]
            raise Refused(f"holds more than weights and plain values, or less: {why}") from None


def publish(draft: Path, file: Path, content: bytes) -> None:
    """Gives a file new content, whole or not at all, whenever the process or the machine stops."""
    with draft.open("xb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    draft.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
