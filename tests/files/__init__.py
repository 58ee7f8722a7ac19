"""One table as the usual programs write it: what it means (meant.py), the files, and who made them (make_files.py)."""
