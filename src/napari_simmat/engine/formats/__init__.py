"""Files in and out of arrays: images of many formats, label images, prompts."""
