"""What is on disk: blobs, records, names, locks; every write is atomic."""
