"""MountRequest -> [Mount]: host directories, named volumes, tmpfs."""
