"""A whole visit in one command: the real service, and two people made of recordings."""
