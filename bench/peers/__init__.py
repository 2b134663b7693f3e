"""Other projects, under the same load in the same run: what a call costs them."""
