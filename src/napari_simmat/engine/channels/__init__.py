"""The channels of an image: which feed a model, what they show, and others made from them."""
