"""Which network and which recipe learn more on real data: a study that can be stopped and continued at any time."""
