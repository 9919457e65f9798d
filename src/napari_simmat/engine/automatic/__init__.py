"""Everything in an image segmented: where to ask, what is kept, what becomes an object."""
