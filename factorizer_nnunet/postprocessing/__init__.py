"""Rules that a segmentation is postprocessed by, region by region, and the file of a model's folder that has them."""

LEAVE_OUT = "--no-postprocessing"  # the option of predict and calibrate
