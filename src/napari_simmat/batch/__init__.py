"""Files in, label images out: inputs, a plan of tasks, and runs that can stop at any time."""
