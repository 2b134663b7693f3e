"""Several processes behind the same ports: one front, which accepts, and workers, which run the visits."""
