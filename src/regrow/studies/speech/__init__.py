"""Speech recognition: trained, tested, shown."""
