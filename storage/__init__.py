"""What is kept: visits and the audit chain."""
