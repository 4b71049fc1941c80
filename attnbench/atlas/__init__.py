"""The approximation atlas: how far a mechanism is from full attention on the same tokens with the same weights."""
