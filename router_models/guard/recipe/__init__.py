"""How `router_models/guard` is made; see ``__main__``."""
