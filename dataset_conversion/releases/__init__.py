"""Declarations of releases, a small module for each family; ``catalog`` lists them all.

Facts that are known from users alone, or not at all, are marked unconfirmed where they stand.
"""
