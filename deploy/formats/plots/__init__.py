"""Figures as inline SVG: what a plot is, how it is laid out and drawn, and the pages that hold it."""
