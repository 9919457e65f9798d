"""Score models on labelled images."""
