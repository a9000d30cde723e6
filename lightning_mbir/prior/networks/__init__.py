"""Networks that a prior can be."""
