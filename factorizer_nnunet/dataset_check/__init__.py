"""Every voxel of a raw dataset is looked at before nnU-Net plans with it: files to facts, facts to findings."""
