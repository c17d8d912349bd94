"""Fewer levels or colors before the model."""
