"""Tells a tenant's own system what happens in its visits: signed, in order, until it is taken or given up."""
