"""The demo: sparse networks beside dense ones, with what they saved and what they cost."""
