"""The command line: ``sklearn-featx``, one file a command; `_main` parses and reports errors.

Thin: whatever it does, the public estimators and functions do.
"""
