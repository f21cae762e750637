"""Tar layers, read and written through file descriptors only, and their compression."""
