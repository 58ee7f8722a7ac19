"""When it is done: each flow reads like the story it tells, and looks at the world rather than at what woke it."""

from tasks import settings

settings.apply()  # before Prefect is imported: it reads its environment once
