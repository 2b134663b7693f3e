"""Sets the project up, runs its tests in groups, and makes what its documents show."""
