"""A real language model behind a real third-party server, for tests that need both."""
