"""What is done to k-space of several coils before it is reconstructed: pure functions on arrays."""
