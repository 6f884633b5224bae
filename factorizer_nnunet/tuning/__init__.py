"""Trained folds to a faster model folder: what each way to predict costs and is worth on the folds' own cases.

``settings`` names the ways, ``cases`` finds and scores the validation cases, ``measure`` takes turns and keeps what it
measured, ``choice`` compares and chooses, ``table`` and ``figure`` show it, ``derive`` writes the model folder;
``tune`` does all of it.
"""
