"""Labelled images for training and evaluation: folders, arrays, the AIMS benchmark, drawn scenes."""
