"""Rollout: the plan, the table of phases, sequential tests, the controller, its records, their replay."""
