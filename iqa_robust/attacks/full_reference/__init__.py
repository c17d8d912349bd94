"""Attacks on full-reference models."""
