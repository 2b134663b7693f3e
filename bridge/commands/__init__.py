"""The commands of `porteiro`: one file each, with `add_parser` and `run`."""
