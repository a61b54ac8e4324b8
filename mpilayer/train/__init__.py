"""Schedules and training loops; arrays come in, states go out."""
