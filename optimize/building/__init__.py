"""Building: a recipe's stages folded over its source, every step kept, and figures of what was made."""
