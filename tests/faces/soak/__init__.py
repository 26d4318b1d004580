"""A soak of the proxy: mixed load on a real ``llm-proxy serve`` at its limits; see `tests.faces.soak.__main__`."""
