"""What the factors of a trained Factorizer look at: maps of components over a case, ranked by what they tell.

For notebooks: ``factorizer_nnunet.explain.case.explain_case``.
"""
