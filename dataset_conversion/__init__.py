"""Challenge releases into nnU-Net raw format; so far BraTS 2021."""
