"""One self-contained page of results, report.html: tables, linked figures and the provenance of every cell, no network.

Python computes every number and every text; the scripts beside this file show, sort, filter and link them.
"""
