"""Measurements against peers, in one process and one run, and their recorded results."""
