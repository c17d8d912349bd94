"""Defenses that bound the score inside a ball."""
