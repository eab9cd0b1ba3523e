"""Images: data sets in their published formats, and models."""
