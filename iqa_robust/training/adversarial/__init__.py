"""Robust training: an inner player that perturbs the batch, and the terms of the loss that answer it."""
