"""Filters and classic denoisers before the model."""
