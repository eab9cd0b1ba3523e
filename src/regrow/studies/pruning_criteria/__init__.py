"""Where to prune in dynamic sparse training: which weights to drop, and does it matter?"""
