"""Are sparse networks better at hard samples: hard in themselves, corrupted, attacked, or few?"""
