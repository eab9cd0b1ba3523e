"""Does LiDAR on road users help to predict them? The trial, the study, pictures, a run's page."""
