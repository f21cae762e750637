"""Client of the OCI distribution specification. Knows no store: it streams bytes to whoever asks."""
