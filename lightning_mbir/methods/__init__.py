"""What turns a measurement into a volume: one file a method, tasks, units, samples, ``reconstruct``."""
