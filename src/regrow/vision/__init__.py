"""Images: data sets in their published formats, models, and corruptions."""
