"""From trained folds to a faster model folder: measure prediction settings on the folds' own validation cases.

``search_space`` lists the settings, ``cases`` reads and scores the validation cases, ``measure`` predicts them with
each setting in turn, ``selection`` compares and chooses, ``table`` and ``figure`` show the comparison, ``derive``
writes the model folder; ``tune`` does all of it.
"""
