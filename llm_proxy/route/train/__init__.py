"""Training a router on one's own traffic: learner, baselines, cross-validation, and the files of a head."""
