"""What counts as drift: how much evidence there must be, of how many days, and how large a change must be.

What counts on one day alone, however little evidence there is, is in extremes.py.
"""

CHANCE = 0.05
"""The probability that an alarm is ever raised of a model while nothing changes: over all its columns and all days."""

MIN_DAYS = 7
"""A column is «as in training» only after so many days of production. With fewer days its status is «not enough data»;
drift may be reported all the same."""

MIN_REFERENCE_DAYS = 28
"""Against fewer days of training rows only gross changes are told (gross.py), which is said."""

MIN_ROWS = 5
"""Days with fewer rows are put together until they have as many (`series.pooled`). A day with few rows counts less than
one with many (`DaySeries.damping`)."""

MIN_SHARE = 0.005
"""Values of a category that are rarer than this in the reference are tested together, as «rare values»."""

MIN_EFFECT = 0.1
"""A mean must move by this many standard deviations of the reference's rows, a spread must change by this share of
itself. The share of a value is the mean of a number that is 0 or 1: at a share of a third, five points. Without this
limit every alarm would be about a difference that is certain and does not matter."""

MIN_CHANGE = 0.01
"""A share (of a value, of rare values, of missing values) must also change by this much; the share of values that the
reference does not know by a tenth of it."""

RECENT_DAYS = 28
"""A column that does not drift is described by its last days: effect sizes and missing share are of these."""

CAUSE_DAYS = 7
"""Columns belong to one alarm if they began to move, or were detected, within so many days of each other."""
