"""Floor 3: one outside dependency each; adapters do not import each other."""
