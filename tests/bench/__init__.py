"""Figures, not tests: how fast bookings are made and the calendar is served. `python -m tests.bench --help`."""
