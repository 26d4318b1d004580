"""Where the nearest vectors of a scope are found. What the rest sees is `llm_proxy.cache.index.base.VectorIndex`."""
