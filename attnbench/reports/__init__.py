"""Rows to tables and figures. They read tables and nothing else."""
