"""What carries a leg's audio."""
