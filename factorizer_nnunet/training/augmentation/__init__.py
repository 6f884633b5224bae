"""Augmentation on the training device: workers draw and read, the device transforms.

nnU-Net's workers read a large patch, sample the rotated and scaled one from it and change its intensities, all on the
CPU. Here the pipeline that the trainer gives stays the same, but its work is divided. A worker draws the spatial
parameters, reads the voxels that they need and passes both on (``spatial``, ``loader``). The training process draws the
other parameters with batchgeneratorsv2's own code and transforms the sample on the device (``resampling``,
``transforms``, ``pipeline``, ``augmenter``). ``nnunet.environment`` has the variable that decides.
"""
