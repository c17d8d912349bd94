"""Twins of models made for the attack loop: the same scores to within rounding, from faster layers."""
