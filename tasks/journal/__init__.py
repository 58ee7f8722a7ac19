"""The journal: every decision and act on one line, each holding the hash of the line before, all of them signed.

`journal` writes and reads it, `signing` has the key, `verification` finds what was changed, `migration` takes over what
earlier builds kept elsewhere.
"""
