"""Prompts and objects in files."""
