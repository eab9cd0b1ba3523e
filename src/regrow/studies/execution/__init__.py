"""How fast and how small is training that stores active weights only, on this machine?"""
