"""Triggers of backdoors: image changes that a model learned to answer to from poisoned training data."""
