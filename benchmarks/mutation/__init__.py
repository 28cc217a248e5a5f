"""The checker is checked: faults planted on purpose, and who notices them."""
