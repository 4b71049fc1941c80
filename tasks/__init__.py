"""Tasks, one file each: a task is handed a model for its port, trains it and returns named numbers.

The twin of mechanisms/: a file that starts with an underscore is shared plumbing, every other file is a task, and its
file name is its name everywhere.
"""

from tasks._checkpoint import Checkpoint
from tasks._port import Port
from tasks._registry import Better, Make, Runnable, Task, TaskKnobs, Trained, register, tasks
from tasks._step import update
from tasks._train import Diverged

find, names = tasks.find, tasks.names

__all__ = [
    "Better",
    "Checkpoint",
    "Diverged",
    "Make",
    "Port",
    "Runnable",
    "Task",
    "TaskKnobs",
    "Trained",
    "find",
    "names",
    "register",
    "update",
]
