"""NetworkSpec -> Attachment: addresses, bridge, published ports, name files. Knows no container record."""
