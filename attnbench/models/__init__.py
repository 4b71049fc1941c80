"""Models: where a task and a mechanism meet. One file, one model; a file that starts with an underscore is plumbing."""

from attnbench.models._make import Mechanism, counted, maker
from attnbench.models._registry import Model, models, register

find, names = models.find, models.names

__all__ = ["Mechanism", "Model", "counted", "find", "maker", "names", "register"]
