"""What computes line integrals and their transpose, one file a backend."""
