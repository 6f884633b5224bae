"""Figures as SVG within a page: colours and sizes come from its style, every case can be pointed at."""
