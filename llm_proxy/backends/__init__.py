"""Upstream servers: how to ask them and what they cost."""
