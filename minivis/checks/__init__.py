"""What exercises are checked with: one module for each topic, on the machinery of `minivis.checks.base`."""
