"""A program that is asked now and then and never waited for: one that hangs must not stop heartbeats and watchdogs."""

import math
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from subprocess import DEVNULL, PIPE


class Question:
    """Asks `command` again every `every_s` seconds; an answer that takes longer than `answer_s` is given up."""

    def __init__(self, command: Sequence[str], *, every_s: float, answer_s: float):
        self._command, self._every_s, self._answer_s = list(command), every_s, answer_s
        self._asked = -math.inf  # monotonic time of the newest question
        self._process: subprocess.Popen[str] | None = None

    def look(self) -> str | None:
        """What the program has said, once for each time that it was asked; None while there is nothing new."""
        if self._process is None:
            if time.monotonic() - self._asked >= self._every_s:
                self._asked = time.monotonic()
                with suppress(OSError):
                    self._process = subprocess.Popen(self._command, stdout=PIPE, stderr=DEVNULL, text=True)
            return None
        if self._process.poll() is None:
            if time.monotonic() - self._asked > self._answer_s:
                self._process.kill()
            return None
        said, _ = self._process.communicate()
        self._process = None
        return said

    def close(self) -> None:
        """Waits for no answer, and leaves no process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
