"""Reference -> Image: pull, load, import, tag, remove. Knows no container."""
