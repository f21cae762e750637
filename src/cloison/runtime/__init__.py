"""An OCI runtime of its own: Spec -> LaunchPlan -> launcher -> exit status. Knows no image and no network."""
