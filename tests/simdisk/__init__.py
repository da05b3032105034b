"""A simulated disk, what a crash may leave on it, and the sweeps over both."""
