"""The state of an annotation, without a window: prompts, drafts, history, and their file."""
