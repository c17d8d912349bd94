"""Attacks whose limit is what people see, or which do not live in a ball of pixel values: one per file."""
