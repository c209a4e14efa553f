"""Bringing runs to their records: processes, schedules, clusters."""
