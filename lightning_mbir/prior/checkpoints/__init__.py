"""Priors in files."""
