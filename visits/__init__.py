"""The domain without I/O: what a visit is, who may decide, how people say names and numbers."""
