"""What models of images ask of a port, and how they are told the number of blocks of each stage."""

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from tasks import Port


def written(blocks: Any) -> Any:
    """As words: a single number, too, which a command line or a sweep file gives as a number."""
    return str(blocks) if isinstance(blocks, int) else blocks


def counted(blocks: str) -> str:
    words = blocks.split()
    if not words or not all(word.isdecimal() and int(word) for word in words):
        raise ValueError("one number of blocks for each stage, such as '2 2 6 2'")
    return blocks


Blocks = Annotated[str, BeforeValidator(written), AfterValidator(counted)]


def refuse(port: Port, patch: int = 1, *, of: str) -> None:
    """Raises ValueError for a port that is no image, or not one of whole patches."""
    if len(port.shape) != 2:
        raise ValueError(f"{of} serves grids (H, W); this task's shape is {port.shape}.")
    if port.symbols:
        raise ValueError(f"{of} serves images, numbers at every point; this task gives symbols.")
    if any(side % patch for side in port.shape):
        raise ValueError(f"{of}.patch must divide the task's shape {port.shape}; got {patch}.")
