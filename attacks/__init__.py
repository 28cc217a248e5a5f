"""Files that other tools fall for, and what ours answers."""
