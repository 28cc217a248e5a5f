"""What a verification found, in every form that people and their CI read."""
