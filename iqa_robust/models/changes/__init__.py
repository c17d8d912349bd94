"""Scores of images from what changed in them: for searches that try one small change after the other."""
