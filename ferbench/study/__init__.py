"""Studies: a search of each model's space on an equal budget, by Optuna, that never sees the test split.

The only room that imports optuna.
"""
