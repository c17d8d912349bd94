"""Random noise before the model."""
