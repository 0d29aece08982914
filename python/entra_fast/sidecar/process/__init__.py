"""Processes: one that does everything, or a provider process with several workers."""
