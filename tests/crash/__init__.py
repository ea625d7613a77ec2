"""Kills all parts at random moments, and checks that no confirmed message is lost."""
