"""Chain of layers -> [Mount], behind one Protocol. Knows no image and no container."""
