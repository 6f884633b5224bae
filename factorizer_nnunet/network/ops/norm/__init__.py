"""Instance norm on channels-last volumes, and norms fused with the linear layer that follows them."""
