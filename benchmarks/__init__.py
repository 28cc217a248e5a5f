"""Measured against the tools that a user would pick instead."""
