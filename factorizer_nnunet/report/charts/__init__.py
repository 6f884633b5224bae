"""Figures as SVG inside a page: colours and sizes come from its style, and every case can be pointed at.

In all modules, ``place`` is the index of a model among all results, which decides its colour, and ``case_numbers`` are
the indices of cases in the page's list of all cases. Values are arrays (cases,), NaN if undefined.
"""
