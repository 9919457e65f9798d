"""Score models on labeled images."""
