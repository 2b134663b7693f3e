"""AudioSocket: its framing, its server, and the telephone that calls it."""
