"""Coverage-guided fuzzing of everything that reads what strangers hand in.

Run: make fuzz, or python -m fuzz --minutes 10 [TARGET ...]
"""
