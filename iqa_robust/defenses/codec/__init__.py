"""Lossy codecs before the model."""
