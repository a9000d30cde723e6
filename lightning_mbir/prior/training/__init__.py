"""Training of a prior, and what is looked at meanwhile."""
