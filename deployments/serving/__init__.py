"""The router and the replicas behind it: the one HTTP server that clients see."""
