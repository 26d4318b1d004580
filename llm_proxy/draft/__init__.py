"""Ways of drafting: what is needed to ask for less than a whole answer at a time, and when that pays."""
