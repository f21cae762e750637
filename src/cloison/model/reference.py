"""Image references: ``[domain/]path[:tag][@digest]`` (distribution-spec; grammar of docker's reference package)."""
