"""Where it is done: the local stack, the Bento service, schedules and triggers."""
