"""Dynamic sparse training and image corruption: is it more robust than dense training?"""
