"""The nouns of the OCI specifications. No I/O."""
