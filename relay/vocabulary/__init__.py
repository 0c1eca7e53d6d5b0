"""Formats, frames, names, errors, the clock: the words that every other room uses."""
