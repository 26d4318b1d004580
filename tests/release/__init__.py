"""What a release is tried with, where only the wheel is installed; `scripts/release-check` runs it."""
