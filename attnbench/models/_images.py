"""What models of images ask of a port."""

from tasks import Port


def refuse(port: Port, patch: int = 1, *, of: str) -> None:
    """Raises ValueError for a port that is no image, or not one of whole patches."""
    if len(port.shape) != 2:
        raise ValueError(f"{of} serves grids (H, W); this task's shape is {port.shape}.")
    if port.symbols:
        raise ValueError(f"{of} serves images, numbers at every point; this task gives symbols.")
    if any(side % patch for side in port.shape):
        raise ValueError(f"{of}.patch must divide the task's shape {port.shape}; got {patch}.")
