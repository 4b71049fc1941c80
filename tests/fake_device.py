"""A device that is not there, for tests of what times it."""

from types import ModuleType

import pytest


class Device:
    """A device that works on while the host goes on, and the clock of both, in nanoseconds: that of a module."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, clocked: ModuleType):
        self.now = self.free = 0
        monkeypatch.setattr(clocked, "perf_counter_ns", lambda: self.now)

    def enqueue(self, ms: float) -> None:
        """Hands work to the device; the host is busy with that for 0.1 ms."""
        self.free = max(self.free, self.now) + int(ms * 1e6)
        self.now += 100_000

    def wait(self) -> None:
        self.now = max(self.now, self.free)
