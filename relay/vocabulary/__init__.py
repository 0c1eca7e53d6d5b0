"""The terms that every other package uses: formats, frames, names, errors and the clock."""
