"""Sparse training inside other people's loops. Each adapter imports its library when it is used."""
