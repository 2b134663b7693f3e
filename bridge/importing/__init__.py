"""What `porteiro import` reads from older systems and spreadsheets, and how it becomes settings."""
