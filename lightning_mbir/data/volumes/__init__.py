"""Volumes: their files, their grid, and the module that hands them out."""
