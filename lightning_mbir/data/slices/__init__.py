"""Slices for training: read, cached, varied, and handed out in batches."""
