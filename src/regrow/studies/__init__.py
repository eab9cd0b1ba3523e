"""Questions put to sparse training, each with its trials and its controls."""
