"""What Evergreen costs, beside what a team would otherwise write: measured side by side, by anyone who types `make bench-…`."""
