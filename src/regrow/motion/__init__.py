"""Motion prediction of road users, with the LiDAR points on them: MTR and LiMTR."""
