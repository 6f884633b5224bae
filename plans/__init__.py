"""Plan templates, shipped as JSON files beside this module; see docs/planning_templates.md."""
