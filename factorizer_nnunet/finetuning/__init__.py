"""Continue a trained model on another data set; uses planning, prediction to read models, and importing."""
