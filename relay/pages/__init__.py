"""The pages that browsers show, and the files that they need."""
