"""Files: images, labels, atomic writes."""
