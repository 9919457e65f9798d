"""Tensors only: the foundations, the transfer layer, and what describes a model."""
