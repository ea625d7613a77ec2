"""Everything is killed at random moments, and nothing that was promised is lost."""
