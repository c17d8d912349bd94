"""Detectors: is this image attacked?"""
