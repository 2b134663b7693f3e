"""What calls the resident."""
