"""The main job on synthetic patients: write them, convert, plan, train five folds, ensemble, score."""
