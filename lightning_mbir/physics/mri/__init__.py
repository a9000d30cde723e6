"""MRI: Fourier sampling, coils, masks and trajectories."""
