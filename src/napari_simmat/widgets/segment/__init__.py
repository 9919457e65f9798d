"""The Segment tab: prompts, open and finished objects, stacks."""
