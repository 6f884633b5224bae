"""Ready plan settings, shipped as JSON files beside this module."""
