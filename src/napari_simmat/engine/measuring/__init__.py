"""What a table says of objects."""
