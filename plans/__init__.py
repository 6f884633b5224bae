"""Plan templates, shipped as JSON files next to this module; see docs/planning_templates.md."""
