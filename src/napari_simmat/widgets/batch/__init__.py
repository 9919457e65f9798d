"""The Batch tab: files, settings, the run in its own process, its course."""
