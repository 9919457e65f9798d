"""From image and prompts to masks."""
