"""HTML pages that are a single file and need no network: markup, style, and pictures of slices."""
