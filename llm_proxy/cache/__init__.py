"""Answers kept for later: exact and semantic lookup over a durable store, within a budget."""
