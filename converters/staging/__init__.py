"""Results that appear whole or not at all, whatever happens while they are made."""
