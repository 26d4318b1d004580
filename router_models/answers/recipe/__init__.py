"""How the scorer of answers is made."""
