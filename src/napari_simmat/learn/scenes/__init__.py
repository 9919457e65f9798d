"""Scenes that are drawn, with exact labels, and the sensors that look at them."""
