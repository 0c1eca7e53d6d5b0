"""The load test: many lightweight listeners in separate processes, and a report of what they received."""
