"""Libraries that are not there, played by others that are."""
