"""All settings with their defaults and reasons, and the sources of their values."""
