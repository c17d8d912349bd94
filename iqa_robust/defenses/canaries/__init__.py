"""Defenses known to be broken. An evaluation that does not break or flag every one of them is not to be trusted."""
