"""Formats that Pillow does not read, one file each, behind extras."""
