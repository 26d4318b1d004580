"""Where llm-proxy meets the outside: the openai clients, transports, the reverse proxy, the command line."""
