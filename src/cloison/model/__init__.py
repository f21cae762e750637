"""Our nouns. No I/O."""
