"""The planner's choices against alternatives on real data, at equal training time."""
