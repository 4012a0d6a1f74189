"""What keeps a service operable: logs and counters."""
