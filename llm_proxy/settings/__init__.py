"""The sections of the settings, and what reads and checks them; `llm_proxy.config` puts them together."""
