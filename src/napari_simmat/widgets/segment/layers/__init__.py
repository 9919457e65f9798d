"""What the Segment tab shows on the canvas, and reads from it: layers, prompts, the pen's line."""
