"""What Evergreen costs, beside what a team would otherwise write: side by side, by anyone who types `make bench-…`."""
