"""Images: data sets in their published formats, models, corruptions, and attacks."""
