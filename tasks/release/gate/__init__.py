"""The comparison of challenger and champion, and its verdict."""
