"""The load test: many light listeners in processes of their own, and a report of what they received."""
