"""Who gets a message, and how: live consumers, long polls, back-pressure, replay of histories, timers."""
