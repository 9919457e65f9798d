"""Drawn scenes, the training of a foundation, and the comparisons of SimMAT's paper."""
