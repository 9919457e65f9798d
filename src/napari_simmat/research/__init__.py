"""Scenes, pretraining and the benchmark of the paper; the product never imports them."""
