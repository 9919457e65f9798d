"""Drawn scenes with exact labels, and the sensors that image them."""
