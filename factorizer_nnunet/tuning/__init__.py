"""From trained folds to better settings of their predictions, by the folds' own validation cases.

A faster model folder, by measuring prediction settings:

``search_space`` lists the settings, ``cases`` reads and scores the validation cases, ``measure`` predicts them with
each setting in turn, ``selection`` compares and chooses, ``table`` and ``figure`` show the comparison, ``derive``
writes the model folder; ``tune`` does all of it.

Rules of postprocessing, by predictions that the validation has left: ``candidate_rules`` lists them, ``rule_case``
applies and scores them by ``challenge_score``, ``nested_choice`` chooses, ``rule_search`` does this for all cases and
regions, ``rules_page`` shows it; ``tune_rules`` does all of it.
"""
