"""HTML pages that are one file and need no network: pieces of markup, style, and pictures of slices."""
