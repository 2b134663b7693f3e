"""A complete model server of our own that speaks the OpenAI Realtime protocol."""
