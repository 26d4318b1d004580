"""What is written down about calls."""
