"""The running calls and the service around them."""
