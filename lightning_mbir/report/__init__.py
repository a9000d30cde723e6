"""From results to numbers and pictures."""
