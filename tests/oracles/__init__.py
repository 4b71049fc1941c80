"""Slow, obvious float64 references for the mechanisms: loops over tokens, windows and cells, no shape tricks.

They are written from the papers' definitions and share no code with `mechanisms`; only the weights,
by name, come from the module under test. Every reference takes one sample [*grid, C].
"""
