"""What trained models lose without some channels; uses prediction, and the validation cases of tuning."""
