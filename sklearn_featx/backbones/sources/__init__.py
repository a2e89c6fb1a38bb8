"""Sources of backbones: each file builds headless `Network` objects of one library.

A new source needs a file in this folder and its names in `_registry`.
"""
