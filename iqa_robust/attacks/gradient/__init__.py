"""Gradient attacks: one per file, on the shared climb of `ascent`."""
