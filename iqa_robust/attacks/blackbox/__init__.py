"""Attacks that may only query the model."""
