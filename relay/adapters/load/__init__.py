"""The load generator: a light receiver in processes of its own, what processes use, and the report as a page."""
