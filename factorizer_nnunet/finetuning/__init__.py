"""Continue a trained model on another data set; uses planning, and prediction to read models."""
