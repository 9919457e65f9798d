"""What the Segment tab does: each part changes the session through `Workspace`."""
