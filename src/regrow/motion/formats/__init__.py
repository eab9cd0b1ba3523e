"""Reads what others publish: Waymo's and Argoverse's files, and tracks of pedestrians."""
