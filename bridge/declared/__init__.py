"""Tools that a tenant declares in its settings: one HTTP call each, bounded on every side. docs/tools.md."""
