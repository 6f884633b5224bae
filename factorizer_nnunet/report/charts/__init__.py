"""Figures as SVG inside a page: colours and sizes come from its style, and every case can be pointed at."""
