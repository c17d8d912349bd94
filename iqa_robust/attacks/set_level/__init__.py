"""Attacks on a whole set of images: they plan one score per image from all scores."""
