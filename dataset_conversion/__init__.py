"""Challenge releases (BraTS, ISLES) into nnU-Net raw format."""
