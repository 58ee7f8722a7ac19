"""What a cluster runs: the image of a release, and the manifests in Git that name it."""
