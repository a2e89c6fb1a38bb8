"""The command line ``sklearn-featx``: one file for each command; `_main` parses and reports errors.

The commands are thin: the public estimators and functions do the work.
"""
