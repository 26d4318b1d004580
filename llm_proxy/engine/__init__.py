"""The pure core: decides what to do next and never does it."""
