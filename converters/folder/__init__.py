"""A converted folder and what lies in it."""
