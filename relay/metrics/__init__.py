"""Counting and measuring, and the ways to CloudWatch and Prometheus."""
