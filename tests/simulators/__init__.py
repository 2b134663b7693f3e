"""Simulated counterparts: as strict as the real ones, and they misbehave on command."""
