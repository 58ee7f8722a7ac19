"""A candidate becomes a release: a folder, a Bento, an image, manifests."""
