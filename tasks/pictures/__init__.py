"""Pictures and pages: templates, axes, and numbers and times as people read them."""
