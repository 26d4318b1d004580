"""Which entry to give up. One file per policy, all with the verbs of `llm_proxy.cache.policies.base.Policy`."""
