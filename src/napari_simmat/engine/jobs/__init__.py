"""One image file segmented: what is to be done, the files that come out, the record of how."""
