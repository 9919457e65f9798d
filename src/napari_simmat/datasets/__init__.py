"""Labeled images for training and evaluation, from folders, arrays, benchmarks or drawings."""
