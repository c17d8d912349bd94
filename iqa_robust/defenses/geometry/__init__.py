"""Changes of size and frame before the model."""
