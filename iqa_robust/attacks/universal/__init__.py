"""Attacks that learn one pattern, or a network that makes patterns, and then need no look at the model."""
