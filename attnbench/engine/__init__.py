"""What survives: the store, the supervisor of cells, and the launchers. Nothing here imports torch."""
