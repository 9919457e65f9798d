"""Objects from plane to plane and from time to time: carried on, and linked."""
