"""Sources of backbones: each file makes a `Network` without its head, with its preprocessing.

A new source is a file here and its names in `_registry`.
"""
