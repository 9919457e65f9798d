"""A list of images that is gone through one by one."""
