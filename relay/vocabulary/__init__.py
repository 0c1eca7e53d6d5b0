"""Floor 0: the words that every other floor uses, and nothing that acts."""
