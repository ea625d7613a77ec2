"""What fields may hold and what answers look like: each checked, rendered and described in one place."""
