"""How the encoder was made; `python -m router_models.encoder.recipe --help`."""
