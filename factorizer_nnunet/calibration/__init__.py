"""What out-of-fold cases say about agreement and probabilities: from both to Dice and to calibrated probabilities."""
