"""Attacks of other libraries behind one view of the objective."""
