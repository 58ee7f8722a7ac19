"""Where it is done: serving, orchestration, watching, the status page, the local stack, and the command line."""

from tasks.ground import settings

settings.apply()  # before anything that reads its environment once is imported
