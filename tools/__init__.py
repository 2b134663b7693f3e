"""What a model may call: one file a tool, and the registry."""
