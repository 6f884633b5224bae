"""Out-of-fold predictions to a list of labels that may be wrong, and the filled-in list to corrected labels."""
