"""Figures of matplotlib: numpy in, ``Figure`` out, all in one style."""
