"""The folders and the data set of ``planning_example`` for every test here."""

from planning_example import folders, raw

__all__ = ["folders", "raw"]
