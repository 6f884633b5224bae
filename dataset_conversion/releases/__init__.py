"""Declarations of releases, one module per challenge year. To add a release, define a ``Release`` in one of them.

``catalog`` finds all ``Release`` values here. Facts known only from users, or merely assumed, are marked unconfirmed.
"""
