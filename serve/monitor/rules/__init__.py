"""Alert rules of a model for Prometheus, with routes, tests, a dashboard and a runbook for each, from a plan.

Everything is generated from one list of alerts, and the same plan gives the same bytes.
"""
