"""Any two networks, side by side: their weights, what they say of themselves, what they compute."""
