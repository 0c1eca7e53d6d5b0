"""The commands. They turn settings into objects, objects into tasks, and signals into an orderly shutdown."""
