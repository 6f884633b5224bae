"""What the factors of a trained Factorizer respond to: maps of components over a case, ranked by class separation.

For notebooks: ``factorizer_nnunet.explain.case.explain_case``.
"""
