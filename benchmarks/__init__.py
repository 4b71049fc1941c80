"""Side-by-side runs that show speed as a ratio: what this suite does beside what its user would otherwise take."""
