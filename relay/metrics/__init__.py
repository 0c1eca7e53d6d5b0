"""Counters and measurements, and their export to CloudWatch and Prometheus."""
