"""How the head of tiers was trained and measured."""
