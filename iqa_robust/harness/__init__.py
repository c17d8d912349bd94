"""Track -> cells -> records: the only room that sees datasets, models, defenses and attacks together."""
