"""Tests, by room; a package so that shared parts have one name for pytest and mypy alike."""
