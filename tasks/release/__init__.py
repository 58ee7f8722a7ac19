"""A candidate becomes a release: packaged, judged, registered."""
