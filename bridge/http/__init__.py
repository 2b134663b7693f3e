"""The service's HTTP API: one file for each group of resources."""
