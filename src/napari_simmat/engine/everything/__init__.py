"""All objects of a plane: proposed, decoded, chosen, outlined; in tiles, and by what was taught."""
