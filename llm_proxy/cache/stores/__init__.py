"""Where entries live. One file per store, all with the verbs of `llm_proxy.cache.stores.base.Store`."""
