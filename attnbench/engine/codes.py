"""Exit codes: what a verb tells the shell. 2, a command that cannot be read, belongs to the command line's library."""

DONE = 0  # every cell has a row
REFUSED = 1  # nothing was started, or it was given up or interrupted before its end
INCOMPLETE = 3  # jobs go on, or cells have not run yet
SET_ASIDE = 4  # cells failed twice alike, or a single cell ended with no result
DAMAGED = 5  # a file of the store is hurt
